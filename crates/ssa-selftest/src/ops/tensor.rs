//! Sums and copies of whole tensors.

use ssa_kernels::DType;

use crate::{Context, Result, round};

pub(crate) fn run(context: &mut Context<'_>) -> Result<()> {
    for len in [1, 7, 2048, 100_003] {
        context.case(format!("{len} elements"));
        let (a, a_exact) = context.normal(&[len], 1.0)?;
        let (b, b_exact) = context.normal(&[len], 1.0)?;
        let sums: Vec<f64> = a_exact.iter().zip(&b_exact).map(|(a, b)| a + b).collect();
        let mut sum = a.try_clone()?;
        sum.add_assign(&b)?;
        context.compare("sum", &sum, &sums, &round(&sums))?;
        context.compare("the other owner", &a, &a_exact, &a_exact)?;

        let (half, start) = (len / 2, len / 32 * 8);
        let mut part = a.elements(start..start + half)?;
        context.compare(
            "part",
            &part,
            &a_exact[start..start + half],
            &a_exact[start..start + half],
        )?;
        part.add_elements(&b, start)?;
        context.compare(
            "sum of parts",
            &part,
            &sums[start..start + half],
            &round(&sums[start..start + half]),
        )?;
        let mut whole = b.try_clone()?;
        whole.set_elements(start, &a.elements(start..start + half)?)?;
        let replaced: Vec<f64> = (0..len)
            .map(|index| {
                if (start..start + half).contains(&index) { a_exact[index] } else { b_exact[index] }
            })
            .collect();
        context.compare("replaced part", &whole, &replaced, &replaced)?;

        let device = context.device();
        let wide = a.to_device(device, DType::F32)?;
        context.compare_bits("bf16 to f32", &wide, &a)?;
        let values = context.random().normal(len);
        let values = context.f32_tensor(values, &[len])?;
        let narrow = values.to_device(device, device.dtype())?;
        let direct = ssa_kernels::Tensor::from_vec(values.to_vec()?, [len])?;
        context.compare_bits("f32 to bf16", &narrow, &direct.to_device(device, device.dtype())?)?;
    }
    Ok(())
}
