//! (set with first content)
