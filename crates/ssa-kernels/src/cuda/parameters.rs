//! Parameters of kernels: typed pointers that borrow their memory, numbers, and structs of both.
//!
//! A kernel takes one struct by value. [`kernel!`] declares it as a Rust struct with C layout and
//! generates its CUDA declaration from the same fields, in the same order, for the header
//! `params.cuh` of the module. Both sides assert the size.
//!
//! ```text
//! kernel! {
//!     /// `out = silu(gate) * up`.
//!     "swiglu_fwd" in MODULE:
//!     struct SwigluFwd<'a> {
//!         gate: Input<'a, bf16>,
//!         up: Input<'a, bf16>,
//!         out: Output<'a, bf16>,
//!         len: i64,
//!     }
//! }
//! ```
//!
//! becomes, in CUDA,
//!
//! ```text
//! struct SwigluFwd { const bf16* gate; const bf16* up; bf16* out; i64 len; };
//! ```
//!
//! and the kernel is `extern "C" __global__ void swiglu_fwd(const __grid_constant__ SwigluFwd p)`.

use std::marker::PhantomData;
use std::num::NonZeroU64;

use half::bf16;

use super::kernel::Kernel;
use crate::{KernelError, Result};

/// A type of elements in device memory.
///
/// # Safety
/// [`CUDA`](Self::CUDA) names a CUDA type of the same size and layout, and all bit patterns are
/// values of `Self`.
pub(crate) unsafe trait Element: Copy + 'static {
    /// The type in CUDA.
    const CUDA: &'static str;
}

macro_rules! elements {
    ($($type:ty = $cuda:literal),* $(,)?) => {
        $(
            // SAFETY: plain numbers, and arrays of them that have the layout of CUDA's vectors.
            unsafe impl Element for $type {
                const CUDA: &'static str = $cuda;
            }
        )*
    };
}

elements! {
    f32 = "float", f64 = "double", bf16 = "bf16", u8 = "u8", i16 = "i16", u16 = "u16",
    i32 = "int", u32 = "u32", [f32; 2] = "float2", [i32; 2] = "int2", [i32; 4] = "int4",
}

/// The name of the element in the CUDA declaration of a template.
#[derive(Clone, Copy)]
pub(crate) struct TemplateParameter;

// SAFETY: it is never the type of elements: it only declares templates.
unsafe impl Element for TemplateParameter {
    const CUDA: &'static str = "T";
}

/// `const T*`: memory that a kernel reads.
#[repr(transparent)]
pub(crate) struct Input<'a, T> {
    address: NonZeroU64,
    memory: PhantomData<&'a T>,
}

/// `T*`: memory that a kernel writes, either every element or some of them in place.
#[repr(transparent)]
pub(crate) struct Output<'a, T> {
    address: NonZeroU64,
    memory: PhantomData<&'a mut T>,
}

/// `Gradient<T>`: memory that a kernel adds to or, while it is still zero, sets.
#[repr(C)]
pub(crate) struct Gradient<'a, T> {
    at: Output<'a, T>,
    add: i32,
}

impl<T> Clone for Input<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Input<'_, T> {}

impl<T> Input<'_, T> {
    /// The elements at an address, borrowed for as long as the caller's lifetime says.
    pub(super) fn at(address: NonZeroU64) -> Self {
        Self { address, memory: PhantomData }
    }
}

impl<'a, T> Output<'a, T> {
    /// As [`Input::at`].
    pub(super) fn at(address: NonZeroU64) -> Self {
        Self { address, memory: PhantomData }
    }

    /// The same memory, for a kernel that reads each element in the thread that overwrites it.
    pub(crate) fn as_input(&self) -> Input<'a, T> {
        Input::at(self.address)
    }

    /// The same memory for a shorter time, so that another kernel can write to it too.
    pub(crate) fn reborrow(&mut self) -> Output<'_, T> {
        Output::at(self.address)
    }
}

impl<'a, T> Gradient<'a, T> {
    /// A gradient that holds something to `add` to, or does not.
    pub(crate) fn new(at: Output<'a, T>, add: bool) -> Self {
        Self { at, add: i32::from(add) }
    }

    /// As [`Output::reborrow`], for kernels that write disjoint parts of one gradient.
    pub(crate) fn reborrow(&mut self) -> Gradient<'_, T> {
        Gradient { at: self.at.reborrow(), add: self.add }
    }
}

/// A type of fields of device structs.
///
/// # Safety
/// The declaration has the size, alignment and meaning of `Self`.
pub(crate) unsafe trait Field {
    /// The CUDA declaration of a field called `name`.
    fn declare(name: &str) -> String;
}

// SAFETY: a pointer of 64 bits.
unsafe impl<T: Element> Field for Input<'_, T> {
    fn declare(name: &str) -> String {
        format!("const {}* {name};", T::CUDA)
    }
}

// SAFETY: as above.
unsafe impl<T: Element> Field for Output<'_, T> {
    fn declare(name: &str) -> String {
        format!("{}* {name};", T::CUDA)
    }
}

// SAFETY: None is the null pointer, since addresses are non-zero numbers.
unsafe impl<T: Element> Field for Option<Input<'_, T>> {
    fn declare(name: &str) -> String {
        Input::<T>::declare(name)
    }
}

// SAFETY: as above.
unsafe impl<T: Element> Field for Option<Output<'_, T>> {
    fn declare(name: &str) -> String {
        Output::<T>::declare(name)
    }
}

// SAFETY: `common.cuh` declares `Gradient` with the same two fields.
unsafe impl<T: Element> Field for Gradient<'_, T> {
    fn declare(name: &str) -> String {
        format!("Gradient<{}> {name};", T::CUDA)
    }
}

// SAFETY: C arrays have this layout.
unsafe impl<F: Field, const N: usize> Field for [F; N] {
    fn declare(name: &str) -> String {
        F::declare(&format!("{name}[{N}]"))
    }
}

macro_rules! number_fields {
    ($($type:ty = $cuda:literal),* $(,)?) => {
        $(
            // SAFETY: the same number.
            unsafe impl Field for $type {
                fn declare(name: &str) -> String {
                    format!(concat!($cuda, " {};"), name)
                }
            }
        )*
    };
}

number_fields! { i32 = "int", u32 = "u32", i64 = "i64", f32 = "float", f64 = "double" }

/// A struct with C layout that host and device share; [`device_struct!`] and [`kernel!`] implement
/// it.
pub(crate) trait DeviceStruct {
    /// Its CUDA declaration.
    fn declaration() -> String;
}

/// The parameters of a kernel; [`kernel!`] implements it.
///
/// # Safety
/// The struct has the layout of the only parameter of the kernel.
pub(crate) unsafe trait Parameters: DeviceStruct {
    /// The kernel that takes them.
    fn kernel() -> &'static Kernel;
}

/// The CUDA declaration of a struct; `arguments` are those of the template that it may be.
pub(crate) fn declaration(
    template: &str,
    name: &str,
    arguments: &str,
    size: usize,
    fields: &[String],
) -> String {
    let fields = fields.join("\n    ");
    format!(
        "{template}struct {name} {{\n    {fields}\n}};\n\
         static_assert(sizeof({name}{arguments}) == {size}, \"{name} has another size in Rust\");\n"
    )
}

/// An `int` of a kernel.
///
/// # Errors
/// [`KernelError::Argument`] for sizes that do not fit.
pub(crate) fn int(argument: &'static str, value: usize) -> Result<i32> {
    i32::try_from(value)
        .map_err(|_| KernelError::value("a kernel launch", argument, "below 2^31", value))
}

/// A list of the CUDA declarations of Rust structs for [`Module::structs`](super::Module::structs).
macro_rules! structs {
    ($($name:ty),* $(,)?) => { &[$(<$name as $crate::cuda::DeviceStruct>::declaration),*] };
}
pub(crate) use structs;

/// Declares a struct of numbers that is an element of a table on the device.
macro_rules! device_struct {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident { $($fields:tt)* }
    ) => {
        $crate::cuda::shared_struct! {
            $(#[$meta])*
            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            $vis struct $name [] { $($fields)* }
        }

        // SAFETY: a struct of numbers in C layout, whose CUDA declaration has the same fields.
        #[allow(unsafe_code)]
        unsafe impl $crate::cuda::Element for $name {
            const CUDA: &'static str = stringify!($name);
        }
    };
}
pub(crate) use device_struct;

/// Declares a struct that is a part of the parameters of several kernels.
macro_rules! parameter_group {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident<$lifetime:lifetime> { $($fields:tt)* }
    ) => {
        $crate::cuda::shared_struct! {
            $(#[$meta])*
            $vis struct $name [$lifetime] { $($fields)* }
        }

        // SAFETY: the CUDA struct of this name is declared from the fields of this one.
        #[allow(unsafe_code)]
        unsafe impl $crate::cuda::Field for $name<'_> {
            fn declare(name: &str) -> String {
                format!(concat!(stringify!($name), " {};"), name)
            }
        }
    };
}
pub(crate) use parameter_group;

/// Declares the parameters of a kernel, or of one kernel for each of several types `T`; see the
/// documentation of `parameters`.
macro_rules! kernel {
    (
        $(#[$meta:meta])*
        $function:literal in $module:ident:
        $vis:vis struct $name:ident<$lifetime:lifetime> { $($fields:tt)* }
    ) => {
        $crate::cuda::shared_struct! {
            $(#[$meta])*
            $vis struct $name [$lifetime] { $($fields)* }
        }
        $crate::cuda::kernel! { @launch $name<'_>: $function in $module }
    };
    (
        $(#[$meta:meta])*
        $($function:literal for $element:ident),+ in $module:ident:
        $vis:vis struct $name:ident<$lifetime:lifetime, T> { $($fields:tt)* }
    ) => {
        $crate::cuda::shared_struct! {
            $(#[$meta])*
            $vis struct $name [$lifetime, T] { $($fields)* }
        }
        $($crate::cuda::kernel! { @launch $name<'_, $element>: $function in $module })+
    };
    (@launch $name:ty: $function:literal in $module:ident) => {
        // SAFETY: the only parameter of the kernel is declared from the fields of this struct.
        #[allow(unsafe_code)]
        unsafe impl $crate::cuda::Parameters for $name {
            fn kernel() -> &'static $crate::cuda::Kernel {
                // What every card takes.
                const { assert!(size_of::<$name>() <= 4096, "a kernel has 4096 bytes at most") };
                static KERNEL: $crate::cuda::Kernel =
                    $crate::cuda::Kernel::new(&$module, $function);
                &KERNEL
            }
        }
    };
}
pub(crate) use kernel;

/// A Rust struct with C layout and its CUDA declaration, a template where it has a `T`.
macro_rules! shared_struct {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident [$($lifetime:lifetime)?] {
            $($(#[$field_meta:meta])* $field_vis:vis $field:ident: $type:ty),* $(,)?
        }
    ) => {
        $(#[$meta])*
        #[repr(C)]
        $vis struct $name $(<$lifetime>)? {
            $($(#[$field_meta])* $field_vis $field: $type),*
        }

        impl $(<$lifetime>)? $crate::cuda::DeviceStruct for $name $(<$lifetime>)? {
            fn declaration() -> String {
                let fields = [$(<$type as $crate::cuda::Field>::declare(stringify!($field))),*];
                $crate::cuda::declaration("", stringify!($name), "", size_of::<Self>(), &fields)
            }
        }
    };
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident [$lifetime:lifetime, T] {
            $($(#[$field_meta:meta])* $field_vis:vis $field:ident: $type:ty),* $(,)?
        }
    ) => {
        $(#[$meta])*
        #[repr(C)]
        $vis struct $name<$lifetime, T> {
            $($(#[$field_meta])* $field_vis $field: $type),*
        }

        impl<$lifetime, E: $crate::cuda::Element> $crate::cuda::DeviceStruct
            for $name<$lifetime, E>
        {
            fn declaration() -> String {
                // The template's parameter takes the place of the element.
                type T = $crate::cuda::TemplateParameter;
                let fields = [$(<$type as $crate::cuda::Field>::declare(stringify!($field))),*];
                let size = size_of::<Self>();
                let name = stringify!($name);
                $crate::cuda::declaration("template <typename T> ", name, "<u8>", size, &fields)
            }
        }
    };
}
pub(crate) use shared_struct;
