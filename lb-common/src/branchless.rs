//! Choices without branches.
//!
//! A bucket is searched and judged word by word. As branches, that is two to the power of the words' number of
//! paths, for the verifier to walk and for the CPU to mispredict. Conditions are bits here, 0 or 1, and choosing is
//! a multiplication. Not masks of all ones: recent verifiers walk both cases of a mask (kernel/bpf/verifier.c,
//! `maybe_fork_scalars`), which is the branch again.

/// The highest bit of `value`.
#[inline(always)]
#[must_use]
pub fn sign_bit(value: u64) -> u64 {
    #[cfg(not(target_arch = "bpf"))]
    {
        value >> 63
    }
    // LLVM sees through the shift and makes a branch of what follows; it does not see through assembly.
    #[cfg(target_arch = "bpf")]
    {
        let mut bit = value;
        // SAFETY: one shift of a register.
        unsafe {
            core::arch::asm!("{0} >>= 63", inout(reg) bit, options(pure, nomem, nostack));
        }
        bit
    }
}

/// Whether `a < b`; both are below 2^63.
#[inline(always)]
#[must_use]
pub fn less(a: u64, b: u64) -> u64 {
    sign_bit(a.wrapping_sub(b))
}

/// Whether `value` is not zero.
#[inline(always)]
#[must_use]
pub fn is_set(value: u64) -> u64 {
    sign_bit(value | value.wrapping_neg())
}

/// Whether `value` is zero.
#[inline(always)]
#[must_use]
pub fn is_zero(value: u64) -> u64 {
    is_set(value) ^ 1
}

/// `a` where `bit` is 1, `b` where it is 0.
#[inline(always)]
#[must_use]
pub const fn select(bit: u64, a: u64, b: u64) -> u64 {
    b ^ (a ^ b).wrapping_mul(bit)
}

/// `value`, of which the compiler is to know nothing: what follows is not cloned for each of its values.
///
/// Cloned code is more paths for the verifier and more cache lines for the CPU.
#[inline(always)]
#[must_use]
pub fn opaque(value: u64) -> u64 {
    #[cfg(not(target_arch = "bpf"))]
    {
        value
    }
    #[cfg(target_arch = "bpf")]
    {
        let mut value = value;
        // SAFETY: adds nothing to a register.
        unsafe {
            core::arch::asm!("{0} += 0", inout(reg) value, options(pure, nomem, nostack));
        }
        value
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bits_say_what_comparisons_say(a in 0u64..1 << 63, b in 0u64..1 << 63, any: u64) {
            prop_assert_eq!(less(a, b) != 0, a < b);
            prop_assert_eq!(select(less(a, b), a, b), a.min(b));
            prop_assert_eq!(is_zero(any) != 0, any == 0);
            prop_assert_eq!(is_set(any) != 0, any != 0);
            prop_assert_eq!(select(0, any, a), a);
            prop_assert_eq!(select(1, any, a), any);
        }
    }

    #[test]
    fn the_ends_of_the_range() {
        assert_eq!(is_zero(0), 1);
        assert_eq!(is_zero(1 << 63), 0);
        assert_eq!(less(3, 3), 0);
    }
}
