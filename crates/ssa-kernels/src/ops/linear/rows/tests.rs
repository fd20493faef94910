use ssa_testkit::{Random, Tolerance, assert_close};

use super::*;
use crate::ops::linear::reference;
use crate::ops::testing::{
    assert_refused, assert_same, tensor, to_f64, values, with_threads, zeros,
};

/// Rows, I, and O of each map: less than a panel, whole panels, more than a group of them.
const SHAPES: [(usize, usize, &[usize]); 6] = [
    (1, 1, &[1]),
    (3, 7, &[16, 5]),
    (13, 20, &[33, 1, 64]),
    (2, 33, &[300]),
    (7, 64, &[16]),
    (0, 5, &[18]),
];

fn weights(random: &mut Random, inputs: usize, outputs: &[usize]) -> Vec<Tensor> {
    outputs.iter().map(|&outputs| tensor(random, [outputs, inputs])).collect()
}

/// The same matrix with every element rounded to `bf16`.
fn rounded(weight: &Tensor) -> Tensor {
    let rounded = values(weight).iter().map(|&x| half::bf16::from_f32(x).to_f32());
    Tensor::from_vec(rounded.collect(), weight.shape()).unwrap()
}

fn pack(weights: &[Tensor], dtype: DType) -> LinearWeight {
    LinearWeight::new(&weights.iter().collect::<Vec<_>>(), dtype).unwrap()
}

/// The definition of the order: one chain over I.
fn chain(x: &[f32], row: &[f32]) -> f32 {
    x.iter().zip(row).fold(0.0, |sum, (x, w)| x.mul_add(*w, sum))
}

#[test]
fn every_element_is_one_chain_of_multiply_adds() {
    let mut random = Random::new(1);
    for (rows, inputs, outputs) in SHAPES {
        let x = tensor(&mut random, [rows, inputs]);
        for dtype in [DType::F32, DType::Bf16] {
            let mut weights = weights(&mut random, inputs, outputs);
            let packed = pack(&weights, dtype);
            if dtype == DType::Bf16 {
                weights = weights.iter().map(rounded).collect();
            }
            let out = linear_rows_fwd(&x, &packed).unwrap();
            assert_eq!(out.len(), weights.len());
            for (out, weight) in out.iter().zip(&weights) {
                assert_eq!(out.shape(), [rows, weight.shape()[0]]);
                let expected = values(&x)
                    .chunks(inputs)
                    .flat_map(|x| values(weight).chunks(inputs).map(move |row| chain(x, row)));
                assert_eq!(values(out), expected.collect::<Vec<_>>());
                let reference = reference::forward(&to_f64(&x), &to_f64(weight), inputs).unwrap();
                assert_close("rows", values(out), &reference, Tolerance::F32);
            }
        }
    }
}

#[test]
fn rows_and_threads_do_not_change_a_result() {
    let mut random = Random::new(2);
    let (rows, inputs) = (11, 130);
    let x = tensor(&mut random, [rows, inputs]);
    let packed = pack(&weights(&mut random, inputs, &[1000, 17]), DType::Bf16);
    let whole = linear_rows_fwd(&x, &packed).unwrap();
    for threads in [1, 2, 5] {
        let again = with_threads(threads, || linear_rows_fwd(&x, &packed).unwrap());
        again.iter().zip(&whole).for_each(|(again, whole)| assert_same(again, whole));
    }
    for (row, x) in values(&x).chunks(inputs).enumerate() {
        let alone = Tensor::from_vec(x.to_vec(), [1, inputs]).unwrap();
        for (alone, whole) in linear_rows_fwd(&alone, &packed).unwrap().iter().zip(&whole) {
            let width = whole.last_dim();
            assert_eq!(values(alone), &values(whole)[row * width..(row + 1) * width]);
        }
    }
}

#[test]
fn rows_of_the_matrix_come_back() {
    let mut random = Random::new(3);
    for inputs in [6, 7] {
        let weights = weights(&mut random, inputs, &[20]);
        for (dtype, weight) in
            [(DType::F32, weights[0].try_clone().unwrap()), (DType::Bf16, rounded(&weights[0]))]
        {
            let packed = pack(&weights, dtype);
            let rows = packed.rows(&[19, 0, 16]).unwrap();
            assert_eq!(rows.shape(), [1, 3, inputs]);
            let expected = [19, 0, 16].map(|row| &values(&weight)[row * inputs..][..inputs]);
            assert_eq!(values(&rows), expected.concat());
            assert_refused(packed.rows(&[0, 20]), "ids");
        }
    }
}

#[test]
fn the_smallest_exact_type_is_found() {
    let weight = tensor(&mut Random::new(4), [3, 5]);
    assert_eq!(LinearWeight::exact_dtype(&[&weight]).unwrap(), DType::F32);
    assert_eq!(LinearWeight::exact_dtype(&[&rounded(&weight), &weight]).unwrap(), DType::F32);
    assert_eq!(LinearWeight::exact_dtype(&[&rounded(&weight)]).unwrap(), DType::Bf16);
    assert_eq!(pack(&[zeros([33, 3])], DType::Bf16).bytes(), 2 * 32 * 2 * 4);
}

#[test]
fn wrong_matrices_are_refused() {
    assert_refused(LinearWeight::new(&[], DType::F32), "weights");
    assert_refused(LinearWeight::new(&[&zeros([2, 3]), &zeros([2, 4])], DType::F32), "weights");
    assert_refused(LinearWeight::new(&[&zeros([0, 3])], DType::F32), "weights");
    assert_refused(LinearWeight::new(&[&zeros([2, 3])], DType::I16), "dtype");
}
