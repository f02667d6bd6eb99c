//! Small XDP programs put together by hand, and how they are attached: no object file, no toolchain.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use anyhow::{Context as _, Result, anyhow};
use aya_obj::generated::{bpf_attach_type, bpf_cmd, bpf_prog_type};

use crate::netns::Namespace;

/// One instruction: <https://docs.kernel.org/bpf/standardization/instruction-set.html>.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Insn {
    opcode: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// A register: `R0` is the result, `R1` the context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say all")]
#[repr(u8)]
pub enum Reg {
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
}

/// `XDP_PASS`: up into the kernel's stack.
pub const XDP_PASS: i32 = 2;
/// `XDP_TX`: back out of the same interface.
pub const XDP_TX: i32 = 3;
/// The helper `bpf_redirect(ifindex, flags)`.
pub const BPF_REDIRECT: i32 = 23;

impl Insn {
    const fn new(opcode: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> Self {
        Self { opcode, registers: destination | source << 4, offset, immediate }
    }

    /// `to = value`
    #[must_use]
    pub const fn set(to: Reg, value: i32) -> Self {
        Self::new(0xb7, to as u8, 0, 0, value)
    }

    /// `to = from`
    #[must_use]
    pub const fn copy(to: Reg, from: Reg) -> Self {
        Self::new(0xbf, to as u8, from as u8, 0, 0)
    }

    /// `to += value`
    #[must_use]
    pub const fn add(to: Reg, value: i32) -> Self {
        Self::new(0x07, to as u8, 0, 0, value)
    }

    /// `to = *(u16 *)(from + offset)`
    #[must_use]
    pub const fn load16(to: Reg, from: Reg, offset: i16) -> Self {
        Self::new(0x69, to as u8, from as u8, offset, 0)
    }

    /// `to = *(u32 *)(from + offset)`
    #[must_use]
    pub const fn load32(to: Reg, from: Reg, offset: i16) -> Self {
        Self::new(0x61, to as u8, from as u8, offset, 0)
    }

    /// `*(u16 *)(at + offset) = bytes`
    #[must_use]
    pub const fn store16(at: Reg, offset: i16, bytes: [u8; 2]) -> Self {
        Self::new(0x6a, at as u8, 0, offset, u16::from_ne_bytes(bytes) as i32)
    }

    /// `*(u32 *)(at + offset) = bytes`
    #[must_use]
    pub const fn store32(at: Reg, offset: i16, bytes: [u8; 4]) -> Self {
        Self::new(0x62, at as u8, 0, offset, i32::from_ne_bytes(bytes))
    }

    /// Skips `skip` instructions if `a > b`.
    #[must_use]
    pub const fn if_greater(a: Reg, b: Reg, skip: i16) -> Self {
        Self::new(0x2d, a as u8, b as u8, skip, 0)
    }

    /// Skips `skip` instructions if the low 32 bits of `a` are not `value`.
    #[must_use]
    pub const fn if_not_equal32(a: Reg, value: i32, skip: i16) -> Self {
        Self::new(0x56, a as u8, 0, skip, value)
    }

    /// Calls a helper.
    #[must_use]
    pub const fn call(helper: i32) -> Self {
        Self::new(0x85, 0, 0, 0, helper)
    }

    /// Returns `R0`.
    #[must_use]
    pub const fn exit() -> Self {
        Self::new(0x95, 0, 0, 0, 0)
    }
}

/// A program that hands every frame to the stack.
///
/// A veth interface takes frames from its peer's `XDP_TX`, or from a redirect to its peer, only while it
/// has such a program itself.
pub const PASS: [Insn; 2] = [Insn::set(Reg::R0, XDP_PASS), Insn::exit()];

/// An XDP program on an interface; gone from it on drop.
#[derive(Debug)]
pub struct Attached {
    link: OwnedFd,
}

impl Attached {
    /// Loads a program and attaches it to an interface's driver.
    ///
    /// # Errors
    /// Where the kernel refuses, with the verifier's words if it is about the program.
    pub fn new(namespace: &Namespace, device: &str, program: &[Insn]) -> Result<Self> {
        let index = namespace.interface_index(device)?;
        let program = load(program)?;
        let attr = LinkCreate {
            prog_fd: program.as_raw_fd().cast_unsigned(),
            target_ifindex: index,
            attach_type: bpf_attach_type::BPF_XDP as u32,
            flags: XDP_FLAGS_DRV_MODE,
        };
        // The kernel looks the index up in the caller's namespace.
        let link = namespace
            .run_in(|| bpf(bpf_cmd::BPF_LINK_CREATE, &attr))
            .with_context(|| format!("attach XDP to {device} in namespace {}", namespace.name()))?;
        Ok(Self { link })
    }

    /// Pins it on bpffs, so that it stays when this process ends.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn pin(&self, path: &Path) -> Result<()> {
        let text = CString::new(path.as_os_str().as_bytes())?;
        let attr = ObjPin {
            pathname: text.as_ptr() as u64,
            bpf_fd: self.link.as_raw_fd().cast_unsigned(),
            flags: 0,
        };
        bpf_plain(bpf_cmd::BPF_OBJ_PIN, &attr)
            .map(drop)
            .with_context(|| format!("pin XDP link at {}", path.display()))
    }
}

const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

/// The beginnings of `union bpf_attr` that are used here; the kernel takes the rest as zero.
#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
}

#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
}

#[repr(C)]
struct ObjPin {
    pathname: u64,
    bpf_fd: u32,
    flags: u32,
}

fn load(program: &[Insn]) -> Result<OwnedFd> {
    let mut log = vec![0u8; 64 << 10];
    let attr = ProgLoad {
        prog_type: bpf_prog_type::BPF_PROG_TYPE_XDP as u32,
        insn_cnt: u32::try_from(program.len())?,
        insns: program.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log_level: 1,
        log_size: u32::try_from(log.len())?,
        log_buf: log.as_mut_ptr() as u64,
    };
    bpf(bpf_cmd::BPF_PROG_LOAD, &attr).map_err(|error| {
        let words = String::from_utf8_lossy(&log).trim_end_matches('\0').to_owned();
        anyhow!(error).context(format!("load XDP program: {words}"))
    })
}

/// A command of bpf(2) that gives a file descriptor.
fn bpf<T>(command: bpf_cmd, attr: &T) -> io::Result<OwnedFd> {
    let fd = bpf_plain(command, attr)?;
    // SAFETY: the kernel has just made this descriptor for us, and nothing else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn bpf_plain<T>(command: bpf_cmd, attr: &T) -> io::Result<i32> {
    // SAFETY: `attr` is one of the plain structs above, and the addresses in it are of buffers that its
    // maker holds during the call.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command as libc::c_long, std::ptr::from_ref(attr), size_of::<T>())
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(result).map_err(io::Error::other)
}
