use ssa_testkit::{Random, Tolerance, assert_close, assert_gradient};

use super::GateBranch::{Compression, Selection, Window};
use super::*;
use crate::ops::testing::{
    assert_refused, assert_same, dot, normal_f64, ones_like, plus_one, tensor, to_f64, values,
    values_mut, with_threads, zeros, zeros_like,
};

const BRANCHES: [GateBranch; 3] = [Compression, Selection, Window];

/// B, T, HQ, hidden and D.
const SHAPES: [(usize, usize, usize, usize, usize); 4] =
    [(1, 1, 1, 1, 1), (2, 63, 3, 17, 6), (1, 100, 16, 64, 16), (3, 7, 5, 130, 64)];

fn backward(dgate: &Tensor, x: &Tensor, g_proj: &Tensor, branch: GateBranch) -> (Tensor, Tensor) {
    let gate = gate_fwd(x, g_proj, branch).unwrap();
    let [mut dx, mut dg_proj] =
        [Tensor::zeros_like(x).unwrap(), Tensor::zeros_like(g_proj).unwrap()];
    gate_bwd(dgate, &gate, x, g_proj, branch, &mut dx, &mut dg_proj).unwrap();
    (dx, dg_proj)
}

#[test]
fn projection_matches_the_reference() {
    for (batch, tokens, heads, hidden, _) in SHAPES {
        for branch in BRANCHES {
            let mut random = Random::new(1);
            let x = tensor(&mut random, [batch, tokens, hidden]);
            let g_proj = tensor(&mut random, [3 * heads, hidden]);
            let dgate = tensor(&mut random, [batch, tokens, heads]);

            let gate = gate_fwd(&x, &g_proj, branch).unwrap();
            let (dx, dg_proj) = backward(&dgate, &x, &g_proj, branch);

            assert_eq!(gate.shape(), [batch, tokens, heads]);
            let expected =
                reference::forward(&to_f64(&x), &to_f64(&g_proj), branch, hidden).unwrap();
            assert_close("gate", values(&gate), &expected, Tolerance::F32);
            let (edx, edg_proj) =
                reference::backward(&to_f64(&dgate), &to_f64(&x), &to_f64(&g_proj), branch, hidden)
                    .unwrap();
            assert_close("dx", values(&dx), &edx, Tolerance::F32);
            assert_close("dg_proj", values(&dg_proj), &edg_proj, Tolerance::F32);
        }
    }
}

#[test]
fn other_branches_are_neither_read_nor_written() {
    let mut random = Random::new(2);
    let (heads, hidden) = (4, 33);
    let x = tensor(&mut random, [1, 65, hidden]);
    let dgate = tensor(&mut random, [1, 65, heads]);
    for branch in BRANCHES {
        let mut g_proj = tensor(&mut random, [3 * heads, hidden]);
        let mut dg_proj = zeros([3 * heads, hidden]);
        let others = |row: &usize| row % 3 != branch.first_row();
        for row in (0..3 * heads).filter(others) {
            values_mut(&mut g_proj)[row * hidden..][..hidden].fill(f32::NAN);
            values_mut(&mut dg_proj)[row * hidden..][..hidden].fill(7.5);
        }
        let gate = gate_fwd(&x, &g_proj, branch).unwrap();
        let mut dx = Tensor::zeros_like(&x).unwrap();
        gate_bwd(&dgate, &gate, &x, &g_proj, branch, &mut dx, &mut dg_proj).unwrap();

        assert!(values(&gate).iter().chain(values(&dx)).all(|value| value.is_finite()));
        for row in (0..3 * heads).filter(others) {
            assert!(values(&dg_proj)[row * hidden..][..hidden].iter().all(|&value| value == 7.5));
        }
    }
}

#[test]
fn application_matches_the_reference() {
    for (batch, tokens, heads, _, head_dim) in SHAPES {
        let mut random = Random::new(3);
        let [out, dgated] = [(); 2].map(|()| tensor(&mut random, [batch, tokens, heads, head_dim]));
        let gate = tensor(&mut random, [batch, tokens, heads]);

        let gated = gate_apply_fwd(&out, &gate).unwrap();
        let [mut dout, mut dgate] =
            [Tensor::zeros_like(&out).unwrap(), Tensor::zeros_like(&gate).unwrap()];
        gate_apply_bwd(&dgated, &out, &gate, &mut dout, &mut dgate).unwrap();

        let expected = reference::apply_forward(&to_f64(&out), &to_f64(&gate), head_dim).unwrap();
        assert_close("gated", values(&gated), &expected, Tolerance::F32);
        let (edout, edgate) =
            reference::apply_backward(&to_f64(&dgated), &to_f64(&out), &to_f64(&gate), head_dim)
                .unwrap();
        assert_close("dout", values(&dout), &edout, Tolerance::F32);
        assert_close("dgate", values(&dgate), &edgate, Tolerance::F32);
    }
}

#[test]
fn gradients_are_added() {
    let mut random = Random::new(4);
    let (x, g_proj) = (tensor(&mut random, [1, 5, 6]), tensor(&mut random, [9, 6]));
    let [gate, dgate] = [(); 2].map(|()| tensor(&mut random, [1, 5, 3]));
    let run = |start: fn(&Tensor) -> Tensor| {
        let [mut dx, mut dg_proj] = [start(&x), start(&g_proj)];
        gate_bwd(&dgate, &gate, &x, &g_proj, Window, &mut dx, &mut dg_proj).unwrap();
        (dx, dg_proj)
    };
    let ((once_dx, once_dg_proj), (dx, dg_proj)) = (run(zeros_like), run(ones_like));
    assert_close("dx", values(&dx), &plus_one(&once_dx), Tolerance::F32);
    assert_close("dg_proj", values(&dg_proj), &plus_one(&once_dg_proj), Tolerance::F32);

    let [out, dgated] = [(); 2].map(|()| tensor(&mut random, [1, 5, 3, 10]));
    let run = |start: fn(&Tensor) -> Tensor| {
        let [mut dout, mut dgate] = [start(&out), start(&gate)];
        gate_apply_bwd(&dgated, &out, &gate, &mut dout, &mut dgate).unwrap();
        (dout, dgate)
    };
    let ((once_dout, once_dgate), (dout, dgate)) = (run(zeros_like), run(ones_like));
    assert_close("dout", values(&dout), &plus_one(&once_dout), Tolerance::F32);
    assert_close("dgate", values(&dgate), &plus_one(&once_dgate), Tolerance::F32);
}

#[test]
fn results_do_not_depend_on_threads() {
    let mut random = Random::new(5);
    let x = tensor(&mut random, [1, 900, 96]);
    let g_proj = tensor(&mut random, [48, 96]);
    let dgate = tensor(&mut random, [1, 900, 16]);
    let run = |threads| with_threads(threads, || backward(&dgate, &x, &g_proj, Selection));
    let ((dx, dg_proj), (expected_dx, expected_dg_proj)) = (run(1), run(5));
    assert_same(&dx, &expected_dx);
    assert_same(&dg_proj, &expected_dg_proj);
}

#[test]
fn reference_passes_gradcheck() {
    let mut random = Random::new(6);
    let [x, g_proj, dgate] = [8, 24, 4].map(|len| normal_f64(&mut random, len));
    for branch in BRANCHES {
        let (dx, dg_proj) = reference::backward(&dgate, &x, &g_proj, branch, 4).unwrap();
        let loss = |x: &[f64], g_proj: &[f64]| {
            dot(&reference::forward(x, g_proj, branch, 4).unwrap(), &dgate)
        };
        assert_gradient("dx", &x, &dx, |x| loss(x, &g_proj));
        assert_gradient("dg_proj", &g_proj, &dg_proj, |g_proj| loss(&x, g_proj));
    }
    let [out, gate, dgated] = [12, 4, 12].map(|len| normal_f64(&mut random, len));
    let (dout, dgate) = reference::apply_backward(&dgated, &out, &gate, 3).unwrap();
    assert_gradient("dout", &out, &dout, |out| {
        dot(&reference::apply_forward(out, &gate, 3).unwrap(), &dgated)
    });
    assert_gradient("dgate", &gate, &dgate, |gate| {
        dot(&reference::apply_forward(&out, gate, 3).unwrap(), &dgated)
    });
}

#[test]
fn wrong_shapes_are_refused() {
    let [x, g_proj, gate] = [zeros([1, 2, 4]), zeros([9, 4]), zeros([1, 2, 3])];
    assert_refused(gate_fwd(&zeros([2, 4]), &g_proj, Window), "x");
    assert_refused(gate_fwd(&x, &zeros([8, 4]), Window), "g_proj");
    assert_refused(gate_fwd(&x, &zeros([9, 5]), Window), "g_proj");
    assert_refused(gate_fwd(&x, &zeros([0, 4]), Window), "g_proj");
    let bwd = |dgate: &Tensor, gate: &Tensor, dx: [usize; 3], dg_proj: [usize; 2]| {
        gate_bwd(dgate, gate, &x, &g_proj, Window, &mut zeros(dx), &mut zeros(dg_proj))
    };
    let other = zeros([1, 3, 2]);
    bwd(&gate, &gate, [1, 2, 4], [9, 4]).unwrap();
    assert_refused(bwd(&other, &gate, [1, 2, 4], [9, 4]), "gate");
    assert_refused(bwd(&gate, &other, [1, 2, 4], [9, 4]), "gate");
    assert_refused(bwd(&gate, &gate, [1, 4, 2], [9, 4]), "dx");
    assert_refused(bwd(&gate, &gate, [1, 2, 4], [4, 9]), "dg_proj");

    let out = zeros([1, 2, 3, 5]);
    assert_refused(gate_apply_fwd(&x, &gate), "out");
    assert_refused(gate_apply_fwd(&out, &other), "gate");
    assert_refused(gate_apply_fwd(&zeros([1, 2, 3, 0]), &gate), "out");
    let bwd = |dgated: &Tensor, dout: [usize; 4], dgate: [usize; 3]| {
        gate_apply_bwd(dgated, &out, &gate, &mut zeros(dout), &mut zeros(dgate))
    };
    bwd(&out, [1, 2, 3, 5], [1, 2, 3]).unwrap();
    assert_refused(bwd(&x, [1, 2, 3, 5], [1, 2, 3]), "dgated");
    assert_refused(bwd(&out, [1, 2, 5, 3], [1, 2, 3]), "dout");
    assert_refused(bwd(&out, [1, 2, 3, 5], [1, 3, 2]), "dgate");
}
