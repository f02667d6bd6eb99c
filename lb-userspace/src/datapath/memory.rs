//! Array maps as memory: what the kernel's `BPF_F_MMAPABLE` gives.
//!
//! The data plane reads and writes the same bytes at any moment, so every access here is one volatile or atomic
//! access of the kernel's page-aligned memory.

use std::{
    marker::PhantomData,
    os::fd::AsFd,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

use memmap2::{MmapOptions, MmapRaw};

/// A structure that both sides share: plain bytes, of which every pattern is a value.
///
/// # Safety
/// `Self` is `repr(C)` or `repr(transparent)`, made of integers and arrays of them, without padding that matters.
pub(super) unsafe trait Shared: Copy {}

// SAFETY: an integer.
unsafe impl Shared for u64 {}
// SAFETY: `repr(C)` of integers and arrays, see lb-common's size asserts.
unsafe impl Shared for lb_common::Addr {}
// SAFETY: as above.
unsafe impl Shared for lb_common::Service {}
// SAFETY: as above.
unsafe impl Shared for lb_common::Backend {}
// SAFETY: as above.
unsafe impl Shared for lb_common::Load {}
// SAFETY: as above.
unsafe impl Shared for lb_common::Explanation {}
// SAFETY: as above.
unsafe impl Shared for lb_common::NextHop {}
// SAFETY: as above.
unsafe impl Shared for lb_common::Interface {}
// SAFETY: as above.
unsafe impl Shared for lb_common::abi::Identity {}
// SAFETY: as above.
unsafe impl Shared for lb_common::ring::RingLine {}
// SAFETY: as above.
unsafe impl Shared for lb_common::flow_table::Bucket {}
// SAFETY: as above.
unsafe impl Shared for lb_common::nat_table::NatBucket {}
// SAFETY: as above.
unsafe impl Shared for lb_common::nat_table::NatReply {}

/// An array map's values.
pub(super) struct Memory<T> {
    map: MmapRaw,
    len: usize,
    values: PhantomData<T>,
}

impl<T: Shared> Memory<T> {
    /// Maps the `len` values of an array map.
    pub(super) fn map(fd: impl AsFd, len: u32) -> std::io::Result<Self> {
        use std::os::fd::AsRawFd as _;
        let len = len as usize;
        let bytes = (len * size_of::<T>()).next_multiple_of(page_bytes());
        let map = MmapOptions::new().len(bytes).map_raw(fd.as_fd().as_raw_fd())?;
        Ok(Self { map, len, values: PhantomData })
    }

    /// `len` values of zeroes that belong to no map.
    #[cfg(test)]
    pub(super) fn anonymous(len: usize) -> Self {
        let bytes = (len * size_of::<T>()).next_multiple_of(page_bytes());
        let map = memmap2::MmapMut::map_anon(bytes).expect("memory for a test's table");
        Self { map: MmapRaw::from(map), len, values: PhantomData }
    }

    /// How many values there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    fn at(&self, index: usize) -> *mut T {
        assert!(index < self.len, "index {index} of {}", self.len);
        // SAFETY: inside the mapping by the check above.
        unsafe { self.map.as_mut_ptr().cast::<T>().add(index) }
    }

    /// A copy of a value; where the data plane writes it meanwhile, its words are of different moments.
    pub(super) fn get(&self, index: usize) -> T {
        // SAFETY: aligned, since values are as large as their alignment asks and the mapping begins at a page;
        // every pattern of bits is a value of `T`.
        unsafe { self.at(index).read_volatile() }
    }

    /// Writes a value that the data plane does not read at this moment.
    pub(super) fn set(&self, index: usize, value: T) {
        // SAFETY: as in `get`.
        unsafe { self.at(index).write_volatile(value) }
    }

    /// The aligned word at `offset` bytes of a value.
    pub(super) fn word(&self, index: usize, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && offset + 8 <= size_of::<T>(), "offset {offset}");
        let word = self.at(index).cast::<u8>().wrapping_add(offset).cast();
        // SAFETY: inside the value and aligned by the check above; both sides access it by whole words only.
        unsafe { AtomicU64::from_ptr(word) }
    }

    /// The aligned half-word at `offset` bytes of a value.
    pub(super) fn half(&self, index: usize, offset: usize) -> &AtomicU32 {
        assert!(offset.is_multiple_of(4) && offset + 4 <= size_of::<T>(), "offset {offset}");
        let half = self.at(index).cast::<u8>().wrapping_add(offset).cast();
        // SAFETY: as in `word`.
        unsafe { AtomicU32::from_ptr(half) }
    }

    /// Makes everything written so far visible before what follows.
    pub(super) fn publish(&self, index: usize, offset: usize, word: u64) {
        self.word(index, offset).store(word, Ordering::Release);
    }
}

fn page_bytes() -> usize {
    // SAFETY: takes no pointer.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(bytes).unwrap_or(4096)
}
