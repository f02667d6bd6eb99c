//! Compare-and-exchange on a word of a map, and plain volatile access to words that others write.

use core::{intrinsics, ptr};

use lb_common::Addr;

/// Puts `new` in place of `old`, and says whether it did: the kernel's fully ordered `cmpxchg`.
///
/// # Safety
/// `word` points into a map's value and is aligned to eight bytes.
#[inline(always)]
pub unsafe fn exchange(word: *mut u64, old: u64, new: u64) -> bool {
    use intrinsics::AtomicOrdering::SeqCst;
    // SAFETY: the caller's contract; the maps' memory outlives the program's run.
    let (_, exchanged) = unsafe { intrinsics::atomic_cxchg::<u64, { SeqCst }, { SeqCst }>(word, old, new) };
    exchanged
}

/// Adds to a word that other CPUs add to.
///
/// # Safety
/// As for [`exchange`].
#[inline(always)]
pub unsafe fn add(word: *mut u64, value: u64) {
    use intrinsics::AtomicOrdering::Relaxed;
    // SAFETY: the caller's contract.
    unsafe { intrinsics::atomic_xadd::<u64, u64, { Relaxed }>(word, value) };
}

/// Adds to a word that other CPUs add to, and says what it was.
///
/// # Safety
/// As for [`exchange`].
#[inline(always)]
pub unsafe fn fetch_add(word: *mut u64, value: u64) -> u64 {
    use intrinsics::AtomicOrdering::SeqCst;
    // SAFETY: the caller's contract.
    unsafe { intrinsics::atomic_xadd::<u64, u64, { SeqCst }>(word, value) }
}

/// Reads a word that another CPU or the agent may be writing: one aligned load.
///
/// # Safety
/// As for [`exchange`].
#[inline(always)]
pub unsafe fn read<T: Copy>(word: *const T) -> T {
    // SAFETY: the caller's contract.
    unsafe { ptr::read_volatile(word) }
}

/// Reads an address by two loads: as the bytes that it is made of, it would be sixteen.
///
/// # Safety
/// As for [`exchange`].
#[inline(always)]
pub unsafe fn read_addr(address: *const Addr) -> Addr {
    // SAFETY: the caller's contract; an address is aligned to eight bytes and as long as two words.
    let [high, low] = unsafe { read_words(address) }.map(u64::to_ne_bytes);
    let [a, b, c, d, e, f, g, h] = high;
    let [i, j, k, l, m, n, o, p] = low;
    Addr([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p])
}

/// Reads sixteen bytes as two words, by two loads.
///
/// # Safety
/// As for [`exchange`], or memory of the program's own; aligned to eight bytes, and sixteen of them.
#[inline(always)]
pub unsafe fn read_words<T>(value: *const T) -> [u64; 2] {
    const { assert!(size_of::<T>() == 16 && align_of::<T>() == 8) };
    // SAFETY: the caller's contract.
    unsafe { ptr::read_volatile(value.cast::<[u64; 2]>()) }
}

/// Writes a word that others may be reading: one aligned store.
///
/// # Safety
/// As for [`exchange`].
#[inline(always)]
pub unsafe fn write<T: Copy>(word: *mut T, value: T) {
    // SAFETY: the caller's contract.
    unsafe { ptr::write_volatile(word, value) }
}
