//! Vectorized row operations, written once for every instruction set with `pulp`.
//!
//! [`dispatch`] compiles an operation for the processor found at run time; code inside it calls the
//! `*_simd` functions, so that everything inlines into one instruction set.

use pulp::{Arch, Simd, WithSimd};

/// Runs `op` compiled for the best instruction set of this processor.
#[inline]
pub(crate) fn dispatch<Op: WithSimd>(op: Op) -> Op::Output {
    Arch::new().dispatch(op)
}

/// `e^x` for `x <= 88`, relative error below 2e-7; exactly 0 below -87; NaN stays NaN.
///
/// Cephes' scheme: `x = n ln 2 + r`, a polynomial for `e^r`, and `2^n` built in the exponent bits.
/// Below -87 those bits wrap around, and the last line replaces what they spell. Clamping `x`
/// instead would turn NaN into a number: the processor's maximum drops it.
#[inline(always)]
pub(crate) fn exp_simd<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    // Adding 1.5 * 2^23 rounds to an integer that then sits in the low mantissa bits.
    const ROUND: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    const COEFFICIENTS: [f32; 6] =
        [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];

    let splat = |value| simd.splat_f32s(value);
    let lowest = splat(-87.0);
    let shifted = simd.mul_add_f32s(x, splat(std::f32::consts::LOG2_E), splat(ROUND));
    let n = simd.sub_f32s(shifted, splat(ROUND));
    let r = simd.mul_add_f32s(n, splat(-LN2_HIGH), x);
    let r = simd.mul_add_f32s(n, splat(-LN2_LOW), r);
    let mut polynomial = splat(COEFFICIENTS[0]);
    for coefficient in &COEFFICIENTS[1..] {
        polynomial = simd.mul_add_f32s(polynomial, r, splat(*coefficient));
    }
    let r2 = simd.mul_f32s(r, r);
    let exp_r = simd.add_f32s(simd.mul_add_f32s(polynomial, r2, r), splat(1.0));
    let bits = simd.transmute_u32s_f32s(shifted);
    let exponent = simd.wrapping_dyn_shl_u32s(bits, simd.splat_u32s(23));
    let scaled = simd.transmute_f32s_u32s(simd.add_u32s(simd.transmute_u32s_f32s(exp_r), exponent));
    simd.select_f32s(simd.less_than_f32s(x, lowest), splat(0.0), scaled)
}

/// `e^x` for `x <= 709` in `f64`, relative error below 4e-16; exactly 0 below -708; NaN stays NaN.
///
/// The scheme of [`exp_simd`] on one number, without branches: a loop over it becomes vector code
/// inside [`dispatch`]. (`pulp` cannot shift 64-bit lanes.) Taylor's polynomial of degree 13 leaves
/// out less than 5e-18 where `|r| <= ln 2 / 2`.
#[inline(always)]
pub(crate) fn exp_f64(x: f64) -> f64 {
    // Adding 1.5 * 2^52 rounds to an integer that then sits in the low mantissa bits.
    const ROUND: f64 = 6_755_399_441_055_744.0;
    // The high part ends with 21 zeros, so that its products with integers are exact.
    const LN2_HIGH: f64 = f64::from_bits(0x3fe6_2e42_fee0_0000);
    const LN2_LOW: f64 = f64::from_bits(0x3dea_39ef_3579_3c76);
    const BIAS: u64 = 1023;

    let shifted = x * std::f64::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * LN2_HIGH) - n * LN2_LOW;
    let mut polynomial = RECIPROCAL_FACTORIALS[13];
    for coefficient in RECIPROCAL_FACTORIALS[..13].iter().rev() {
        polynomial = polynomial * r + coefficient;
    }
    let power = f64::from_bits(shifted.to_bits().wrapping_add(BIAS) << 52);
    if x < -708.0 { 0.0 } else { polynomial * power }
}

/// `1 / k!` for k = 0 .. 13.
const RECIPROCAL_FACTORIALS: [f64; 14] = {
    let mut reciprocals = [1.0; 14];
    let mut factorial = 1.0;
    let mut k = 1;
    while k < 14 {
        factorial *= k as f64;
        reciprocals[k] = 1.0 / factorial;
        k += 1;
    }
    reciprocals
};

/// `1 / (1 + e^-x)` for every `x`; NaN stays NaN.
///
/// The exponential is taken of `-|x|`, so it neither overflows nor leaves its accurate range.
#[inline(always)]
pub(crate) fn sigmoid_simd<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let one = simd.splat_f32s(1.0);
    let exp = exp_simd(simd, simd.neg_f32s(simd.abs_f32s(x)));
    let negative = simd.less_than_f32s(x, simd.splat_f32s(0.0));
    simd.div_f32s(simd.select_f32s(negative, exp, one), simd.add_f32s(one, exp))
}

/// Replaces every element of `row` by `e^(scale * x - shift)` and returns their sum.
#[inline(always)]
pub(crate) fn exp_row_simd<S: Simd>(simd: S, row: &mut [f32], scale: f32, shift: f32) -> f32 {
    let (scale, shift) = (simd.splat_f32s(scale), simd.splat_f32s(-shift));
    let mut sum = simd.splat_f32s(0.0);
    let (head, tail) = S::as_mut_simd_f32s(row);
    for x in head {
        *x = exp_simd(simd, simd.mul_add_f32s(*x, scale, shift));
        sum = simd.add_f32s(sum, *x);
    }
    let mut tail_sum = 0.0;
    if !tail.is_empty() {
        let x = exp_simd(simd, simd.mul_add_f32s(simd.partial_load_f32s(tail), scale, shift));
        simd.partial_store_f32s(tail, x);
        tail_sum = tail.iter().sum();
    }
    simd.reduce_sum_f32s(sum) + tail_sum
}

/// The largest element of `row`, negative infinity if it is empty.
#[inline(always)]
pub(crate) fn max_row_simd<S: Simd>(simd: S, row: &[f32]) -> f32 {
    let (head, tail) = S::as_simd_f32s(row);
    let mut max = simd.splat_f32s(f32::NEG_INFINITY);
    for x in head {
        max = simd.max_f32s(max, *x);
    }
    tail.iter().copied().fold(simd.reduce_max_f32s(max), f32::max)
}

/// The largest element of a row in `f64`, negative infinity if it is empty.
#[inline(always)]
pub(crate) fn max_row_f64_simd<S: Simd>(simd: S, row: &[f64]) -> f64 {
    let (head, tail) = S::as_simd_f64s(row);
    let mut max = simd.splat_f64s(f64::NEG_INFINITY);
    for x in head {
        max = simd.max_f64s(max, *x);
    }
    tail.iter().copied().fold(simd.reduce_max_f64s(max), f64::max)
}

/// `sum_i a[i]` in `f64`.
#[inline(always)]
pub(crate) fn sum_f64_simd<S: Simd>(simd: S, a: &[f64]) -> f64 {
    let (head, tail) = S::as_simd_f64s(a);
    let mut sum = simd.splat_f64s(0.0);
    for a in head {
        sum = simd.add_f64s(*a, sum);
    }
    simd.reduce_sum_f64s(sum) + tail.iter().sum::<f64>()
}

/// `sum_i a[i] b[i]` in `f64`.
#[inline(always)]
pub(crate) fn dot_f64_simd<S: Simd>(simd: S, a: &[f64], b: &[f64]) -> f64 {
    let (a_head, a_tail) = S::as_simd_f64s(a);
    let (b_head, b_tail) = S::as_simd_f64s(b);
    let mut sum = simd.splat_f64s(0.0);
    for (a, b) in a_head.iter().zip(b_head) {
        sum = simd.mul_add_f64s(*a, *b, sum);
    }
    let tail: f64 = a_tail.iter().zip(b_tail).map(|(a, b)| a * b).sum();
    simd.reduce_sum_f64s(sum) + tail
}

/// `sum_i a[i] b[i]`.
#[inline(always)]
pub(crate) fn dot_simd<S: Simd>(simd: S, a: &[f32], b: &[f32]) -> f32 {
    let (a_head, a_tail) = S::as_simd_f32s(a);
    let (b_head, b_tail) = S::as_simd_f32s(b);
    let mut sum = simd.splat_f32s(0.0);
    for (a, b) in a_head.iter().zip(b_head) {
        sum = simd.mul_add_f32s(*a, *b, sum);
    }
    let tail: f32 = a_tail.iter().zip(b_tail).map(|(a, b)| a * b).sum();
    simd.reduce_sum_f32s(sum) + tail
}

/// `out[i] += factor * x[i]`.
#[inline(always)]
pub(crate) fn axpy_simd<S: Simd>(simd: S, out: &mut [f32], factor: f32, x: &[f32]) {
    let (out_head, out_tail) = S::as_mut_simd_f32s(out);
    let (x_head, x_tail) = S::as_simd_f32s(x);
    let splat = simd.splat_f32s(factor);
    for (out, x) in out_head.iter_mut().zip(x_head) {
        *out = simd.mul_add_f32s(splat, *x, *out);
    }
    for (out, x) in out_tail.iter_mut().zip(x_tail) {
        *out += factor * x;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct ExpRow<'a>(&'a mut [f32]);

    impl WithSimd for ExpRow<'_> {
        type Output = f32;

        fn with_simd<S: Simd>(self, simd: S) -> f32 {
            exp_row_simd(simd, self.0, 1.0, 0.0)
        }
    }

    #[test]
    fn exp_is_accurate_to_the_last_bits() {
        let inputs: Vec<f32> = (0..=17_500).map(|i| -87.0 + i as f32 * 0.01).collect();
        let mut row = inputs.clone();
        dispatch(ExpRow(&mut row));
        for (x, y) in inputs.iter().zip(&row) {
            let expected = f64::from(*x).exp();
            let error = (f64::from(*y) - expected).abs() / expected;
            assert!(error < 2e-7, "exp({x}) = {y}, error {error:e}");
        }
    }

    struct ExpF64<'a>(&'a mut [f64]);

    impl WithSimd for ExpF64<'_> {
        type Output = ();

        fn with_simd<S: Simd>(self, _: S) {
            self.0.iter_mut().for_each(|x| *x = exp_f64(*x));
        }
    }

    #[test]
    fn exp_in_f64_is_accurate_to_the_last_bits() {
        let inputs: Vec<f64> = (0..=141_600).map(|i| -708.0 + f64::from(i) * 0.01).collect();
        let mut row = inputs.clone();
        dispatch(ExpF64(&mut row));
        for (x, y) in inputs.iter().zip(&row) {
            let error = (y - x.exp()).abs() / x.exp();
            assert!(error < 4e-16, "exp({x}) = {y}, error {error:e}");
        }
        let mut edges = [f64::NEG_INFINITY, -2000.0, f64::MIN, 0.0, f64::NAN];
        dispatch(ExpF64(&mut edges));
        assert_eq!(edges[..4], [0.0, 0.0, 0.0, 1.0]);
        assert!(edges[4].is_nan());
    }

    struct Sigmoid<'a>(&'a mut [f32]);

    impl WithSimd for Sigmoid<'_> {
        type Output = ();

        fn with_simd<S: Simd>(self, simd: S) {
            for x in S::as_mut_simd_f32s(self.0).0 {
                *x = sigmoid_simd(simd, *x);
            }
        }
    }

    #[test]
    fn sigmoid_is_accurate_everywhere() {
        let inputs: Vec<f32> =
            (-1600..1600).map(|i| i as f32 * 0.05).chain([-1e30, 1e30].repeat(8)).collect();
        let mut row = inputs.clone();
        dispatch(Sigmoid(&mut row));
        for (x, y) in inputs.iter().zip(&row) {
            let expected = 1.0 / (1.0 + (-f64::from(*x)).exp());
            let error = (f64::from(*y) - expected).abs();
            assert!(error <= 4e-7 * expected, "sigmoid({x}) = {y}, error {error:e}");
        }
        let mut nan = [f32::NAN; 16];
        dispatch(Sigmoid(&mut nan));
        assert!(nan.iter().all(|x| x.is_nan()));
    }

    #[test]
    fn exp_of_masked_scores_is_zero() {
        let mut row = [f32::NEG_INFINITY, -1000.0, f32::MIN, 0.0];
        assert_eq!(dispatch(ExpRow(&mut row)), 1.0);
        assert_eq!(row, [0.0, 0.0, 0.0, 1.0]);
    }

    #[test]
    fn exp_keeps_nan() {
        // 16 lanes and a tail, so that both loops see one.
        for index in [3, 16] {
            let mut row = [0.0; 17];
            row[index] = f32::NAN;
            assert!(dispatch(ExpRow(&mut row)).is_nan());
            assert!(row[index].is_nan());
        }
    }
}
