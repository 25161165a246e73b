//! Laws of the whole model.

mod gradients;
