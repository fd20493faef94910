//! The axes of arguments, by the letters that the documentation of the ops uses.

/// One axis of an argument, or all axes that come before the named ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Axis {
    /// An axis that has the same size wherever its name occurs in a call.
    Named(&'static str, Sizes),
    /// An axis as long as so many of a named one, which is not empty.
    Times(usize, &'static str),
    /// `..`: any number of axes, of the same sizes in all arguments of a call.
    Leading,
    /// Any number of axes of any size.
    Anything,
}

/// The sizes that a named axis may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sizes {
    /// Any, zero as well: a call without tokens is legal and computes nothing.
    Any,
    /// At least 1.
    Positive,
    /// A divisor of another axis, if the call has that one.
    DivisorOf(&'static str),
}

/// Rows of a batch.
pub(crate) const B: Axis = Axis::Named("B", Sizes::Any);
/// Tokens of a row.
pub(crate) const T: Axis = Axis::Named("T", Sizes::Any);
/// All tokens of a batch, where rows make no difference.
pub(crate) const N: Axis = Axis::Named("N", Sizes::Any);
/// Keys of all queries.
pub(crate) const S: Axis = Axis::Named("S", Sizes::Any);
/// Blocks of all documents.
pub(crate) const C: Axis = Axis::Named("C", Sizes::Any);
/// Query heads.
pub(crate) const HQ: Axis = Axis::Named("HQ", Sizes::Positive);
/// Key/value heads.
pub(crate) const H: Axis = Axis::Named("H", Sizes::DivisorOf("HQ"));
/// Head dimension.
pub(crate) const D: Axis = Axis::Named("D", Sizes::Positive);
/// Width of the residual stream.
pub(crate) const HIDDEN: Axis = Axis::Named("hidden", Sizes::Positive);
/// Vocabulary.
pub(crate) const V: Axis = Axis::Named("V", Sizes::Positive);
/// Inputs of a linear map.
pub(crate) const I: Axis = Axis::Named("I", Sizes::Positive);
/// Outputs of a linear map.
pub(crate) const O: Axis = Axis::Named("O", Sizes::Positive);
/// `..`
pub(crate) const LEADING: Axis = Axis::Leading;
