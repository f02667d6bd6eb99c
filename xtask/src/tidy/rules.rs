//! The rules, as data: a new one is a new row.

/// Longer files hold more than one job.
pub(super) const FILE_LINES_MAX: usize = 500;

/// Words that some places must do without.
pub(super) struct Ban {
    pub(super) rule: &'static str,
    /// Directories, or modules without their `.rs`; "" is everywhere.
    pub(super) places: &'static [&'static str],
    pub(super) except: &'static [&'static str],
    /// Paths as `use` or an expression spells them; comments and strings do not count.
    pub(super) words: &'static [&'static str],
    /// Whether unit tests, too, must do without.
    pub(super) in_tests: bool,
    pub(super) advice: &'static str,
}

pub(super) const BANS: &[Ban] = &[
    Ban {
        rule: "crate-order",
        places: &["lb-common/src"],
        except: &[],
        words: &["flowgate::", "harness::", "lb_ebpf::"],
        in_tests: true,
        advice: "lb-common is the contract of all crates and knows none of them: move this to the user's side",
    },
    Ban {
        rule: "crate-order",
        places: &["lb-ebpf/src", "lb-userspace/src"],
        except: &["lb-userspace/src/main"],
        words: &["flowgate::", "harness::", "lb_ebpf::"],
        in_tests: true,
        advice: "of our crates only lb-common may be used here: put what both sides need there",
    },
    Ban {
        rule: "aya-in-datapath",
        places: &["lb-userspace/src"],
        except: &["lb-userspace/src/datapath"],
        words: &["aya", "aya_log", "aya_obj"],
        in_tests: true,
        advice: "only src/datapath talks to the kernel: give it a method with our own types",
    },
    Ban {
        rule: "pure",
        places: &[
            "lb-userspace/src/config",
            "lb-userspace/src/health/fsm",
            "lb-userspace/src/model",
            "lb-userspace/src/placement",
            "lb-userspace/src/ring",
        ],
        except: &[],
        words: &[
            "Instant::now",
            "SystemTime",
            "TcpListener",
            "TcpStream",
            "UdpSocket",
            "UnixStream",
            "println!",
            "eprintln!",
            "std::env",
            "std::fs",
            "std::io",
            "std::process",
            "std::thread",
            "thread::sleep",
            "tokio",
        ],
        in_tests: false,
        advice: "no clock and no I/O here: take the time or the text as an argument",
    },
    Ban {
        rule: "forward-without-maps",
        places: &["lb-ebpf/src/forward"],
        except: &[],
        words: &["crate::backend", "crate::egress", "crate::flow", "crate::nat", "crate::service"],
        in_tests: true,
        advice: "rewrites are told everything they need: look it up in the caller and pass it on",
    },
    Ban {
        rule: "select-without-packets",
        places: &["lb-ebpf/src/select"],
        except: &[],
        words: &["crate::packet"],
        in_tests: true,
        advice: "selection sees a flow's key, never its bytes: parse in the caller and pass the key on",
    },
    Ban {
        rule: "unfinished",
        places: &[""],
        except: &[],
        words: &["todo!", "unimplemented!", "dbg!"],
        in_tests: true,
        advice: "finish it, or return an error that says what is missing",
    },
    Ban {
        rule: "ignored-test",
        places: &[""],
        except: &[],
        words: &["#[ignore"],
        in_tests: true,
        advice: "a test that does not run proves nothing: mend or remove it",
    },
];

/// All our packages. A crate may depend on those listed for it, and on no other of ours.
pub(super) const PACKAGES: &[&str] =
    &["flowgate", "flowgate-tests", "lb-common", "lb-ebpf", "lb-userspace", "xtask"];

pub(super) const MAY_DEPEND_ON: &[(&str, &[&str])] = &[
    ("lb-common/Cargo.toml", &[]),
    ("lb-ebpf/Cargo.toml", &["lb-common"]),
    ("lb-userspace/Cargo.toml", &["lb-common"]),
    ("tests/Cargo.toml", &["flowgate", "lb-common"]),
    ("xtask/Cargo.toml", &[]),
];

/// Files that are always there, and what they cannot do without.
pub(super) const REQUIRED: &[(&str, &[&str])] = &[
    ("ARCHITECTURE.md", &[]),
    ("CHANGELOG.md", &[]),
    ("Cargo.lock", &[]),
    ("LICENSE-APACHE", &[]),
    ("LICENSE-MIT", &[]),
    ("README.md", &["cargo xtask demo", "cargo xtask test"]),
    ("lb-ebpf/Cargo.lock", &[]),
];

/// Whether a file lies in a directory, or is (part of) a module.
pub(super) fn is_in(file: &str, place: &str) -> bool {
    place.is_empty()
        || file
            .strip_prefix(place)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || rest == ".rs")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_directories_or_modules() {
        for (file, place, expected) in [
            ("lb-ebpf/src/forward/nat.rs", "lb-ebpf/src/forward", true),
            ("lb-ebpf/src/forward.rs", "lb-ebpf/src/forward", true),
            ("lb-ebpf/src/forwarding.rs", "lb-ebpf/src/forward", false),
            ("lb-ebpf/src/main.rs", "lb-ebpf/src/forward", false),
            ("tests/src/lib.rs", "", true),
        ] {
            assert_eq!(is_in(file, place), expected, "{file} in {place}");
        }
    }
}
