//! The demo leaves nothing behind, however it ends. Flowgate itself is not needed: a program that does
//! nothing stands in for it, and the demo waits for it to answer.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::Result;
use harness::{
    scratch::Scratch,
    sweep::{BPFFS, NETNS_DIR, PREFIX},
    wait::wait_until,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

const LIMIT: Duration = Duration::from_secs(20);

struct Demo {
    child: Child,
    _stand_in: Scratch,
}

impl Demo {
    /// Started, and as far as waiting for the agent.
    fn start() -> Result<Self> {
        let scratch = Scratch::new()?;
        let stand_in = scratch.path().join("flowgate");
        fs::write(&stand_in, "#!/bin/sh\n[ \"$1\" = agent ] && exec sleep 1000\nexit 3\n")?;
        fs::set_permissions(&stand_in, fs::Permissions::from_mode(0o755))?;
        let child = Command::new(env!("CARGO_BIN_EXE_demo"))
            .env("FLOWGATE_BIN", stand_in)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let demo = Self { child, _stand_in: scratch };
        wait_until("the agent runs in its namespace", LIMIT, || {
            let balancer = demo.leftovers().into_iter().find(|name| name.ends_with("-balancer"));
            balancer.is_some_and(|name| runs_in(&name, "sleep"))
        })?;
        Ok(demo)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(self.child.id().cast_signed()), signal)?)
    }

    /// What there is of its making.
    fn leftovers(&self) -> Vec<String> {
        let prefix = format!("{PREFIX}{}-", self.child.id());
        let temporary = std::env::temp_dir();
        let places = [NETNS_DIR.as_ref(), BPFFS.as_ref(), temporary.as_path()];
        let entries = places.iter().filter_map(|place| fs::read_dir(place).ok()).flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| name.starts_with(&prefix)).collect()
    }
}

/// Whether a program of that name runs in a namespace.
fn runs_in(namespace: &str, program: &str) -> bool {
    let Ok(output) = Command::new("ip").args(["netns", "pids", namespace]).output() else { return false };
    let text = String::from_utf8_lossy(&output.stdout);
    let name = |pid: &str| fs::read_to_string(format!("/proc/{pid}/comm"));
    text.lines().any(|pid| name(pid.trim()).is_ok_and(|name| name.trim() == program))
}

impl Drop for Demo {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            let _ = self.signal(Signal::SIGINT);
            let _ = self.child.wait();
        }
    }
}

#[test]
fn an_interrupted_demo_leaves_nothing_behind() -> Result<()> {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut demo = Demo::start()?;
        demo.signal(signal)?;
        assert_eq!(demo.child.wait()?.code(), Some(130));
        assert!(demo.leftovers().is_empty(), "{:?}", demo.leftovers());
    }
    Ok(())
}

#[test]
fn a_demo_that_fails_leaves_nothing_behind() -> Result<()> {
    let mut demo = Demo::start()?;
    // It gives the agent up.
    assert_eq!(demo.child.wait()?.code(), Some(1));
    assert!(demo.leftovers().is_empty(), "{:?}", demo.leftovers());
    Ok(())
}

#[test]
fn clean_removes_what_a_killed_demo_left_and_nothing_of_a_running_one() -> Result<()> {
    let clean = || Command::new(env!("CARGO_BIN_EXE_demo")).arg("--clean").output();
    let (mut killed, mut running) = (Demo::start()?, Demo::start()?);
    killed.signal(Signal::SIGKILL)?;
    killed.child.wait()?;
    assert!(killed.leftovers().len() > 6, "{:?}", killed.leftovers());
    let before = running.leftovers();

    let output = clean()?;
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success() && text.contains(&running.child.id().to_string()), "{text}");
    assert!(killed.leftovers().is_empty(), "{:?}", killed.leftovers());
    assert_eq!(running.leftovers().len(), before.len());
    running.signal(Signal::SIGINT)?;
    assert_eq!(running.child.wait()?.code(), Some(130));
    Ok(())
}
