//! Seccomp profiles in docker's form, and its default one.
use crate::error::{Error, Result};
use oci_spec::runtime::{Capabilities, LinuxSeccomp};
/// The profile for containers that ask for none.
pub fn default_profile(capabilities: &Capabilities) -> LinuxSeccomp {
    let _ = capabilities;
    LinuxSeccomp::default()
}
/// Parses docker's JSON form.
pub fn parse(json: &str, capabilities: &Capabilities) -> Result<LinuxSeccomp> {
    let _ = capabilities;
    serde_json::from_str(json).map_err(|e| Error::Invalid(e.to_string()))
}
