//! The server's half of `kra push`: which chunks there are, those that came, and layers put
//! together from both.
//!
//! A chunk is used only for whoever has it: it lies in a layer that the caller names as one of
//! its own, or the caller has sent it, into a [`Space`] of its own.

mod assemble;
mod lists;
mod space;

pub use self::{
    assemble::{Assembly, assemble},
    lists::Lists,
    space::{Received, Space, Spaces},
};
