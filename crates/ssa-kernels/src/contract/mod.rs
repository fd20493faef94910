//! The contract of an op as one table: the axes, the element type and the device of every argument.
//!
//! ```text
//! let call = Args::new("linear_fwd")
//!     .act("x", x, [LEADING, I])
//!     .act("weight", weight, [O, I])
//!     .check()?;
//! let mut out = call.new_act([LEADING, O])?;
//! match call.device() {
//!     Device::Cuda(gpu) => cuda::forward(gpu, x, weight, &mut out)?,
//!     Device::Cpu => ..
//! }
//! ```
//!
//! An axis gets its size from the first argument that has it, and every later argument must agree.
//! The first tensor decides the device. No tensor enters the table without axes and an element
//! type, and an op learns its device from [`Args::check`] alone.
//!
//! The order of a table is the order of the checks: the error names the first argument that does
//! not fit what comes before it.

mod axis;
#[cfg(test)]
mod tests;

pub(crate) use axis::{Axis, B, C, D, H, HIDDEN, HQ, I, LEADING, N, O, S, Sizes, T, V};

use crate::tensor::Location;
use crate::{DType, Device, Documents, KernelError, Result, Sequences, Tensor};

/// The element types that an op reads or writes in an argument.
#[derive(Clone, Copy)]
enum Elements {
    /// What activations and weights have on the device: `f32` on the CPU, `bf16` on a GPU.
    Activation,
    /// One type on every device.
    Exactly(DType),
    /// `f32`, or what activations have.
    Float,
}

impl Elements {
    /// Refuses other types than these.
    fn check(self, location: Location<'_>, actual: DType) -> Result<(), String> {
        let activation = location.activation_dtype();
        match self {
            Self::Activation if actual != activation => Err(activation.to_string()),
            Self::Exactly(dtype) if actual != dtype => Err(dtype.to_string()),
            Self::Float if actual != activation && actual != DType::F32 => {
                Err(format!("{} or {activation}", DType::F32))
            }
            _ => Ok(()),
        }
    }
}

/// The sizes of the axes of a call so far.
#[derive(Default)]
struct Bound {
    sizes: Vec<(&'static str, usize)>,
    /// The sizes that stand for [`Axis::Leading`].
    leading: Option<Vec<usize>>,
}

impl Bound {
    fn get(&self, name: &str) -> Option<usize> {
        self.sizes.iter().find(|(bound, _)| *bound == name).map(|&(_, size)| size)
    }

    /// Takes the sizes of the axes from a shape. If the shape does not have these axes, this
    /// returns `None` and changes nothing.
    fn take(&mut self, shape: &[usize], axes: &[Axis]) -> Option<()> {
        let (sizes, had_leading) = (self.sizes.len(), self.leading.is_some());
        let taken = self.take_some(shape, axes);
        if taken.is_none() {
            self.sizes.truncate(sizes);
            self.leading.take_if(|_| !had_leading);
        }
        taken
    }

    /// As [`Bound::take`], but keeps the sizes that it took before the one that does not fit.
    fn take_some(&mut self, shape: &[usize], axes: &[Axis]) -> Option<()> {
        let named = match axes {
            [Axis::Anything] => return Some(()),
            [Axis::Leading, named @ ..] => {
                let leading = &shape[..shape.len().checked_sub(named.len())?];
                if self.leading.get_or_insert_with(|| leading.to_vec()) != leading {
                    return None;
                }
                named
            }
            named if named.len() == shape.len() => named,
            _ => return None,
        };
        let sizes = &shape[shape.len() - named.len()..];
        named.iter().zip(sizes).try_for_each(|(&axis, &size)| self.bind(axis, size))
    }

    /// Sets the size of an axis, or compares it with the size set before.
    fn bind(&mut self, axis: Axis, size: usize) -> Option<()> {
        let (name, size, legal) = match axis {
            Axis::Named(name, Sizes::Any) => (name, size, true),
            Axis::Named(name, Sizes::Positive) => (name, size, size > 0),
            Axis::Named(name, Sizes::DivisorOf(of)) => {
                let divides = self.get(of).is_none_or(|of| of.is_multiple_of(size));
                (name, size, size > 0 && divides)
            }
            Axis::Times(factor, name) => {
                (name, size / factor, size > 0 && size.is_multiple_of(factor))
            }
            Axis::Leading | Axis::Anything => return None,
        };
        match self.get(name) {
            Some(bound) => (legal && bound == size).then_some(()),
            None => legal.then(|| self.sizes.push((name, size))),
        }
    }

    /// Compares the number of entries of a list with the sizes of these axes. The only one that has
    /// no size yet gets it from the list.
    fn take_len(&mut self, len: usize, axes: &[Axis]) -> Option<()> {
        let mut known = 1_usize;
        let mut open = None;
        for &axis in axes {
            match self.shape(&[axis]) {
                Some(sizes) => {
                    known = sizes.iter().try_fold(known, |len, &size| len.checked_mul(size))?;
                }
                None if open.is_none() => open = Some(axis),
                None => return None,
            }
        }
        match open {
            None => (known == len).then_some(()),
            Some(axis) => self.bind(axis, len.checked_div(known).filter(|n| n * known == len)?),
        }
    }

    /// The shape of these axes; `None` if one of them has no size yet.
    fn shape(&self, axes: &[Axis]) -> Option<Vec<usize>> {
        let mut shape = Vec::with_capacity(axes.len() + 1);
        for axis in axes {
            match axis {
                Axis::Named(name, _) => shape.push(self.get(name)?),
                Axis::Times(factor, name) => shape.push(self.get(name)?.checked_mul(*factor)?),
                Axis::Leading => shape.extend(self.leading.as_ref()?),
                Axis::Anything => return None,
            }
        }
        Some(shape)
    }

    /// The axes as text, with the sizes that are set: `[B = 2, T = 3, H, D = 64]`.
    fn text(&self, axes: &[Axis]) -> String {
        let axis = |axis: &Axis| match *axis {
            Axis::Named(name, sizes) => match (self.get(name), sizes) {
                (Some(size), _) => format!("{name} = {size}"),
                (None, Sizes::Any) => name.to_owned(),
                (None, Sizes::Positive) => format!("{name} >= 1"),
                (None, Sizes::DivisorOf(of)) => match self.get(of) {
                    Some(size) => format!("{name} dividing {of} = {size}"),
                    None => format!("{name} >= 1"),
                },
            },
            Axis::Times(factor, name) => match self.get(name) {
                Some(size) => format!("{factor} * {name} = {}", factor.saturating_mul(size)),
                None => format!("{factor} * {name} >= {factor}"),
            },
            Axis::Leading => match &self.leading {
                Some(sizes) => sizes.iter().map(usize::to_string).collect::<Vec<_>>().join(", "),
                None => "..".to_owned(),
            },
            Axis::Anything => "..".to_owned(),
        };
        let axes: Vec<String> = axes.iter().map(axis).filter(|text| !text.is_empty()).collect();
        format!("[{}]", axes.join(", "))
    }
}

/// The table of an op's arguments, checked row by row.
#[must_use = "`check` reports arguments that do not fit"]
pub(crate) struct Args<'a> {
    op: &'static str,
    /// Where the first tensor is.
    location: Option<Location<'a>>,
    bound: Bound,
    /// The first argument that does not fit.
    refused: Option<KernelError>,
}

impl<'a> Args<'a> {
    /// The table of an op, without arguments.
    pub(crate) fn new(op: &'static str) -> Self {
        Self { op, location: None, bound: Bound::default(), refused: None }
    }

    /// An activation, a weight or the gradient of an activation: `f32` on the CPU, `bf16` on a GPU.
    pub(crate) fn act(
        self,
        argument: &'static str,
        tensor: &'a Tensor,
        axes: impl AsRef<[Axis]>,
    ) -> Self {
        self.tensor(argument, tensor, Elements::Activation, axes.as_ref())
    }

    /// A statistic, a weight gradient or a moment: `f32` everywhere.
    pub(crate) fn f32(
        self,
        argument: &'static str,
        tensor: &'a Tensor,
        axes: impl AsRef<[Axis]>,
    ) -> Self {
        self.typed(argument, tensor, DType::F32, axes)
    }

    /// A tensor of one type on every device.
    pub(crate) fn typed(
        self,
        argument: &'static str,
        tensor: &'a Tensor,
        dtype: DType,
        axes: impl AsRef<[Axis]>,
    ) -> Self {
        self.tensor(argument, tensor, Elements::Exactly(dtype), axes.as_ref())
    }

    /// A tensor in `f32` or in the type of activations.
    pub(crate) fn float(
        self,
        argument: &'static str,
        tensor: &'a Tensor,
        axes: impl AsRef<[Axis]>,
    ) -> Self {
        self.tensor(argument, tensor, Elements::Float, axes.as_ref())
    }

    /// The size of an axis that the caller gives as a number.
    pub(crate) fn size(mut self, argument: &'static str, axis: Axis, size: usize) -> Self {
        if self.bound.bind(axis, size).is_none() {
            let expected = self.bound.text(&[axis]);
            self.refuse(KernelError::value(self.op, argument, expected, size));
        }
        self
    }

    /// A number that is at least 1.
    pub(crate) fn positive(mut self, argument: &'static str, value: usize) -> Self {
        if value == 0 {
            self.refuse(KernelError::value(self.op, argument, "at least 1", value));
        }
        self
    }

    /// A list with one entry for every index of these axes, counted in `unit`. One axis may get its
    /// size from the list.
    pub(crate) fn entries(
        mut self,
        argument: &'static str,
        len: usize,
        unit: &str,
        axes: impl AsRef<[Axis]>,
    ) -> Self {
        let axes = axes.as_ref();
        if self.bound.take_len(len, axes).is_none() {
            let count = self.bound.shape(axes).map_or(String::new(), |shape| {
                let count = shape.iter().fold(1_usize, |count, &size| count.saturating_mul(size));
                format!("{count} ")
            });
            let expected = format!("{count}{unit}, one for each of {}", self.bound.text(axes));
            let actual = format!("{len} {unit}");
            self.refuse(KernelError::value(self.op, argument, expected, actual));
        }
        self
    }

    /// The numbers that a reference reads, in row-major order.
    pub(crate) fn numbers(
        self,
        argument: &'static str,
        values: &[f64],
        axes: impl AsRef<[Axis]>,
    ) -> Self {
        self.entries(argument, values.len(), "numbers", axes)
    }

    /// Documents over the `B * T` tokens of the call.
    pub(crate) fn documents(self, documents: &Documents) -> Self {
        self.entries("documents", documents.total_tokens(), "tokens", [B, T])
    }

    /// Sequences whose queries are the `B * T` tokens of the call.
    pub(crate) fn sequences(self, sequences: &Sequences) -> Self {
        self.entries("sequences", sequences.total_tokens(), "queries", [B, T])
    }

    /// Ends the table.
    ///
    /// # Errors
    /// [`KernelError::Argument`] with the first argument that does not fit.
    pub(crate) fn check(self) -> Result<Checked> {
        if let Some(error) = self.refused {
            return Err(error);
        }
        let Self { op, bound, location, .. } = self;
        let location = location.unwrap_or(Location::Cpu);
        let device = location.device().ok_or_else(|| KernelError::Unsupported {
            op,
            what: "a kernel".to_owned(),
            device: location.to_string(),
            remedy: "use a real device",
        })?;
        Ok(Checked { op, device, bound })
    }

    fn tensor(
        mut self,
        argument: &'static str,
        tensor: &'a Tensor,
        elements: Elements,
        axes: &[Axis],
    ) -> Self {
        if self.refused.is_some() {
            return self;
        }
        let op = self.op;
        let actual = tensor.location();
        let location = *self.location.get_or_insert(actual);
        if actual != location {
            self.refuse(KernelError::device(op, argument, location, actual));
        } else if let Err(expected) = elements.check(location, tensor.dtype()) {
            self.refuse(KernelError::dtype(op, argument, expected, tensor.dtype()));
        } else if self.bound.take(tensor.shape(), axes).is_none() {
            self.refuse(KernelError::shape(op, argument, self.bound.text(axes), tensor.shape()));
        }
        self
    }

    fn refuse(&mut self, error: KernelError) {
        self.refused.get_or_insert(error);
    }
}

/// Arguments that fit each other: where the op runs, and the sizes of its axes.
pub(crate) struct Checked {
    op: &'static str,
    device: Device,
    bound: Bound,
}

impl Checked {
    /// Where all tensors of the call are.
    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    /// The sizes of axes of the table.
    ///
    /// # Errors
    /// No argument of the table has one of the axes.
    pub(crate) fn sizes<const N: usize>(&self, axes: [Axis; N]) -> Result<[usize; N]> {
        let sizes = self.bound.shape(&axes).and_then(|sizes| sizes.try_into().ok());
        sizes.ok_or_else(|| self.unknown(&axes))
    }

    /// A new tensor of activations.
    ///
    /// # Errors
    /// As [`Checked::new_tensor`].
    pub(crate) fn new_act(&self, axes: impl AsRef<[Axis]>) -> Result<Tensor> {
        self.new_tensor(self.device.dtype(), axes)
    }

    /// A new tensor of statistics, `f32` everywhere.
    ///
    /// # Errors
    /// As [`Checked::new_tensor`].
    pub(crate) fn new_f32(&self, axes: impl AsRef<[Axis]>) -> Result<Tensor> {
        self.new_tensor(DType::F32, axes)
    }

    /// A new tensor of which the op writes every element.
    ///
    /// # Errors
    /// No argument of the table has one of the axes, or the tensor would be larger than any memory.
    fn new_tensor(&self, dtype: DType, axes: impl AsRef<[Axis]>) -> Result<Tensor> {
        let axes = axes.as_ref();
        let shape = self.bound.shape(axes).ok_or_else(|| self.unknown(axes))?;
        Tensor::for_output_on(&self.device, dtype, shape)
    }

    fn unknown(&self, axes: &[Axis]) -> KernelError {
        KernelError::value(self.op, "axes", "axes of the arguments", self.bound.text(axes))
    }
}
