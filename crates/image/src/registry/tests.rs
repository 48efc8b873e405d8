//! The client against a real registry and against one that misbehaves on purpose.

mod broken;
mod fake;
mod images;
mod real;
mod support;
