use super::*;
use crate::ops::testing::{assert_refused, values, zeros};

/// A tensor whose elements are on a GPU.
fn on_gpu() -> Tensor {
    Tensor::simulated(Location::Simulated, DType::Bf16, [2])
}

#[test]
fn sizes_that_memory_cannot_hold_are_refused() {
    let shapes: [&[usize]; 5] = [
        &[usize::MAX],
        &[1 << 40, 1 << 40],
        // The product wraps around to 0, and to 4.
        &[1 << 32, 1 << 32],
        &[(1 << 62) + 1, 4],
        // No elements, but rows whose number overflows.
        &[1 << 40, 1 << 40, 0],
    ];
    for shape in shapes {
        println!("{shape:?}");
        assert_refused(Tensor::zeros(shape), "shape");
        assert_refused(Tensor::zeros_on(&Device::Cpu, DType::F32, shape), "shape");
        assert_refused(Tensor::from_vec(vec![0.0; 4], shape), "shape");
        assert_refused(zeros([0]).reshape(shape), "shape");
    }
    assert_eq!(zeros([0, 1 << 40]).rows(), 0);
    assert_eq!(zeros([1 << 40, 0]).rows(), 1 << 40);
}

#[test]
fn shapes_hold_the_elements() {
    assert_refused(Tensor::from_vec(vec![0.0; 3], [2]), "shape");
    assert_refused(zeros([2, 3]).reshape([5]), "shape");
    assert_eq!(zeros([2, 3]).reshape([3, 2]).unwrap().shape(), [3, 2]);
    let scalar = Tensor::from_vec(vec![7.0], []).unwrap();
    assert_eq!((scalar.len(), scalar.rows(), scalar.last_dim()), (1, 1, 1));
    assert!(Tensor::default().is_empty());
}

#[test]
fn the_cpu_holds_f32_only() {
    for dtype in [DType::Bf16, DType::I16] {
        assert_refused(Tensor::zeros_on(&Device::Cpu, dtype, [2]), "dtype");
        assert_refused(zeros([2]).to_device(&Device::Cpu, dtype), "dtype");
    }
    assert_eq!(values(&zeros([2]).to_device(&Device::Cpu, DType::F32).unwrap()), [0.0; 2]);
}

#[test]
fn elements_on_a_gpu_are_not_in_host_memory() {
    assert_refused(on_gpu().as_slice(), "self");
    assert_refused(on_gpu().as_mut_slice(), "self");
    let error = on_gpu().as_slice().unwrap_err().to_string();
    assert_eq!(error, "Tensor::as_slice: `self` is on simulated:0, expected cpu");
    assert_refused(zeros([2]).input::<f32>(), "self");
    assert_refused(zeros([2]).output::<f32>(), "self");
    assert_refused(zeros([2]).in_place::<f32>(), "self");
    assert_refused(zeros([2]).gradient::<f32>(), "self");
}

#[test]
fn tensors_are_compared_by_shape_and_elements() {
    let ones = Tensor::from_vec(vec![1.0, 1.0], [2]).unwrap();
    assert!(ones.same_elements(&ones.try_clone().unwrap()).unwrap());
    assert!(!ones.same_elements(&zeros([2])).unwrap());
    assert!(!ones.same_elements(&ones.try_clone().unwrap().reshape([1, 2]).unwrap()).unwrap());
    let nan = Tensor::from_vec(vec![f32::NAN], [1]).unwrap();
    assert!(!nan.same_elements(&nan).unwrap());
}

#[test]
fn sums_need_equal_tensors() {
    let mut x = Tensor::from_vec(vec![1.0, 2.0], [2]).unwrap();
    x.add_assign(&x.try_clone().unwrap()).unwrap();
    assert_eq!(values(&x), [2.0, 4.0]);
    assert_refused(x.add_assign(&zeros([1, 2])), "other");
    assert_refused(x.add_assign(&on_gpu()), "other");
}

#[test]
fn memory_that_the_system_does_not_have_is_an_error() {
    let bytes = 1_usize << 60;
    let error = Tensor::zeros([bytes / size_of::<f32>()]).unwrap_err();
    assert_eq!(error, KernelError::HostMemory { bytes });
    assert!(error.to_string().contains("1152921504606846976 bytes"), "{error}");
}

#[test]
fn copies_have_their_own_elements() {
    let ones = Tensor::from_vec(vec![1.0, 1.0], [2]).unwrap();
    let mut copy = ones.try_clone().unwrap();
    copy.fill_zero();
    assert_eq!((values(&ones), values(&copy)), (&[1.0, 1.0][..], &[0.0, 0.0][..]));
    assert!(Tensor::zeros_like(&ones).unwrap().same_elements(&copy).unwrap());
}
