//! Every public op refuses every argument that breaks its contract, and names it.
//!
//! [`table`] states the contracts of all ops a second time. The tests break every entry in every
//! way: another device, every other element type, another rank, every axis too long or empty.
//! [`sources`] reads the source of the ops, so that none is missing from the table, nor any of its
//! tensors. [`references`] holds the same for the slices of the references.

mod references;
mod sources;
mod table;

use proptest::prelude::*;

use self::table::{Case, Entry, OPS, Op, Role};
use crate::tensor::Location;
use crate::{DType, KernelError, Result, Tensor};

const DTYPES: [DType; 3] = [DType::F32, DType::Bf16, DType::I16];

/// The kinds of devices on which the tests call the ops.
#[derive(Clone, Copy, Debug, PartialEq)]
enum DeviceKind {
    Cpu,
    Gpu,
}

impl DeviceKind {
    fn other(self) -> Self {
        match self {
            Self::Cpu => Self::Gpu,
            Self::Gpu => Self::Cpu,
        }
    }

    /// The types that an argument may have here.
    fn dtypes(self, role: Role) -> &'static [DType] {
        match (role, self) {
            (Role::Act | Role::Float, Self::Cpu) | (Role::F32 | Role::Same, _) => &[DType::F32],
            (Role::Act, Self::Gpu) => &[DType::Bf16],
            (Role::Float, Self::Gpu) => &[DType::F32, DType::Bf16],
            (Role::LowHalf, _) => &[DType::I16],
            (Role::Given, _) => &[],
        }
    }

    /// Whether calls have this argument here: the CPU has no low halves of master weights.
    fn has(self, entry: &Entry) -> bool {
        entry.role != Role::LowHalf || self == Self::Gpu
    }

    fn tensor(self, dtype: DType, shape: &[usize]) -> Tensor {
        match (self, dtype) {
            (Self::Cpu, DType::F32) => Tensor::zeros(shape).unwrap(),
            (Self::Cpu, _) => Tensor::simulated(Location::Cpu, dtype, shape),
            (Self::Gpu, _) => Tensor::simulated(Location::Simulated, dtype, shape),
        }
    }
}

/// A call of an op, one tensor for every [`Op::tensors`].
struct OpCall<'a> {
    op: &'a Op,
    case: &'a Case,
    kind: DeviceKind,
    tensors: Vec<Tensor>,
}

impl<'a> OpCall<'a> {
    /// A valid call.
    fn valid(op: &'a Op, case: &'a Case, kind: DeviceKind) -> Self {
        let tensor = |entry: &Entry| {
            let dtype = if kind.has(entry) { kind.dtypes(entry.role)[0] } else { DType::F32 };
            kind.tensor(dtype, &case.shape(entry))
        };
        Self { op, case, kind, tensors: op.tensors().map(tensor).collect() }
    }

    /// The call with another tensor instead of one.
    fn with(mut self, index: usize, tensor: Tensor) -> Self {
        self.tensors[index] = tensor;
        self
    }

    /// The call with a tensor of another shape instead of one.
    fn with_shape(self, index: usize, shape: &[usize]) -> Self {
        let tensor = self.kind.tensor(self.tensors[index].dtype(), shape);
        self.with(index, tensor)
    }

    fn run(mut self) -> Result<()> {
        (self.op.run)(&mut self.tensors, self.case, self.kind == DeviceKind::Gpu)
    }

    /// Asserts that the op refuses the argument, or accepts the call if there is none.
    fn expect(self, argument: Option<&str>, what: &str) {
        let Self { op, kind, .. } = self;
        let name = op.name;
        let last = |path: &'static str| path.rsplit("::").next().unwrap_or(path);
        match (self.run(), argument) {
            (Err(KernelError::Argument { op, argument: refused, refusal }), Some(argument)) => {
                assert_eq!(last(op), name, "{name} on {kind:?}, {what}");
                assert_eq!(refused, argument, "{name} on {kind:?}, {what}: {refusal}");
            }
            (Ok(()), None) => assert_eq!(kind, DeviceKind::Cpu, "{name}: no kernel ran on a GPU"),
            (Err(KernelError::Unsupported { op, .. }), None) => {
                assert_eq!((last(op), kind), (name, DeviceKind::Gpu), "{what}");
            }
            (result, expected) => {
                panic!("{name} on {kind:?}, {what}: {result:?}, expected {expected:?}")
            }
        }
    }
}

/// The argument that is refused if one axis of an entry has another size: the entry itself if an
/// earlier one has this axis, else the next one that has it. `None` if no other has it.
fn refused_for(
    op: &'static Op,
    kind: DeviceKind,
    index: usize,
    axis: &str,
) -> Option<&'static str> {
    let (before, rest) = op.entries.split_at(index);
    if axis.starts_with("3*") || before.iter().any(|entry| entry.depends_on(axis)) {
        return Some(op.entries[index].name);
    }
    let mut after = rest[1..].iter().filter(|entry| kind.has(entry));
    after.find(|entry| entry.depends_on(axis)).map(|entry| entry.name)
}

/// Calls `check` for every op, device and tensor argument that the op has there: with the index
/// among the tensors and the index among the entries.
fn for_every_tensor(mut check: impl FnMut(&'static Op, DeviceKind, usize, usize)) {
    for op in OPS.iter() {
        for kind in [DeviceKind::Cpu, DeviceKind::Gpu] {
            let entries = op.entries.iter().enumerate();
            let tensors = entries.filter(|(_, entry)| entry.role != Role::Given);
            for (tensor, (index, entry)) in tensors.enumerate() {
                if kind.has(entry) {
                    check(op, kind, tensor, index);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn valid_calls_are_accepted(case in Case::any()) {
        for op in OPS.iter() {
            for kind in [DeviceKind::Cpu, DeviceKind::Gpu] {
                OpCall::valid(op, &case, kind).expect(None, "a valid call");
            }
        }
    }

    #[test]
    fn another_device_is_refused(case in Case::any()) {
        for_every_tensor(|op, kind, tensor, index| {
            let entry = &op.entries[index];
            let shape = case.shape(entry);
            let elsewhere = kind.other().tensor(kind.other().dtypes(entry.role)[0], &shape);
            // The first tensor decides the device of the call.
            let mut others = op.tensors().skip(1).filter(|entry| kind.has(entry));
            let refused = if tensor > 0 { Some(entry) } else { others.next() };
            if let Some(refused) = refused {
                let call = OpCall::valid(op, &case, kind).with(tensor, elsewhere);
                call.expect(Some(refused.name), &format!("{} elsewhere", entry.name));
            }
        });
    }

    #[test]
    fn every_other_type_is_refused(case in Case::any()) {
        for_every_tensor(|op, kind, tensor, index| {
            let entry = &op.entries[index];
            for dtype in DTYPES {
                let valid = kind.dtypes(entry.role);
                let other = kind.tensor(dtype, &case.shape(entry));
                let call = OpCall::valid(op, &case, kind).with(tensor, other);
                let refused = if !valid.contains(&dtype) {
                    Some(entry)
                } else {
                    // Another valid type, but not that of the argument that has to agree.
                    op.tensors().find(|other| other.role == Role::Same && dtype != valid[0])
                };
                let refused = refused.map(|entry| entry.name);
                call.expect(refused, &format!("{} of {dtype}", entry.name));
            }
        });
    }

    #[test]
    fn another_rank_is_refused(case in Case::any()) {
        for_every_tensor(|op, kind, tensor, index| {
            let entry = &op.entries[index];
            let shape = case.shape(entry);
            for other in [shape[1..].to_vec(), [&[2], &shape[..]].concat()] {
                let refused = match entry.axes().next() {
                    Some("..") => refused_for(op, kind, index, ".."),
                    Some(axis) if axis.starts_with('?') => None,
                    _ => Some(entry.name),
                };
                let what = format!("{} of shape {other:?}", entry.name);
                OpCall::valid(op, &case, kind).with_shape(tensor, &other).expect(refused, &what);
            }
        });
    }

    #[test]
    fn another_size_of_an_axis_is_refused(case in Case::any()) {
        for_every_tensor(|op, kind, tensor, index| {
            let entry = &op.entries[index];
            let shape = case.shape(entry);
            for (position, axis) in case.axes(entry).into_iter().enumerate() {
                for size in [shape[position] + 1, 0] {
                    let mut other = shape.clone();
                    other[position] = size;
                    // Most axes are never empty, whatever the other arguments have.
                    let refused = if size == 0 && !table::may_be_empty(axis) {
                        Some(entry.name)
                    } else {
                        refused_for(op, kind, index, axis)
                    };
                    let what = format!("{} of shape {other:?}", entry.name);
                    let call = OpCall::valid(op, &case, kind).with_shape(tensor, &other);
                    call.expect(refused, &what);
                }
            }
        });
    }
}
