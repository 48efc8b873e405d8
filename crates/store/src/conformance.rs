//! The suite that every engine of the store passes.
