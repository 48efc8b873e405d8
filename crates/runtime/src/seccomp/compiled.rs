//! Filters that an OCI runtime has compiled once.
//!
//! crun spends half of a container's start on compiling the default profile (15 of 29 ms).
//! It keeps the program it made as `seccomp.bpf` beside its state, and takes one that is
//! ready from the annotation [`ANNOTATION`]. The profile stays in the specification for
//! runtimes that do not know the annotation.

use std::{
    collections::HashMap,
    fs,
    path::Path,
    sync::{Mutex, PoisonError},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use oci_spec::runtime::Spec;

const ANNOTATION: &str = "run.oci.seccomp_bpf_data";
/// Profiles that are remembered; a machine has few.
const CAPACITY: usize = 32;
/// Bytes of one instruction (`struct sock_filter`).
const INSTRUCTION: usize = 8;

/// Programs in base64 by binary and profile.
#[derive(Debug, Default)]
pub(crate) struct Compiled(Mutex<HashMap<Key, String>>);

/// An OCI runtime's binary with its time of change, and a profile as JSON.
pub(crate) type Key = (Vec<u8>, Option<std::time::SystemTime>, Vec<u8>);

impl Compiled {
    /// Gives `spec` the program for its profile, if it is known. The key under which it can
    /// be learnt otherwise.
    pub(crate) fn apply(&self, binary: &Path, spec: &mut Spec) -> Option<Key> {
        let is_crun = binary.file_name().is_some_and(|name| name == "crun");
        let profile = spec
            .linux()
            .as_ref()?
            .seccomp()
            .as_ref()
            .filter(|_| is_crun)?;
        let changed = fs::metadata(binary)
            .and_then(|metadata| metadata.modified())
            .ok();
        let key = (
            binary.as_os_str().as_encoded_bytes().to_vec(),
            changed,
            serde_json::to_vec(profile).ok()?,
        );
        let known = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&key)
            .cloned();
        match known {
            Some(program) => {
                let mut annotations = spec.annotations().clone().unwrap_or_default();
                annotations.insert(ANNOTATION.to_owned(), program);
                spec.set_annotations(Some(annotations));
                None
            }
            None => Some(key),
        }
    }

    /// Keeps the program that crun has made for a container with the state directory `state`.
    pub(crate) fn learn(&self, key: Key, state: &Path) {
        let Ok(program) = fs::read(state.join("seccomp.bpf")) else {
            return;
        };
        if program.is_empty() || program.len() % INSTRUCTION != 0 {
            return;
        }
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= CAPACITY {
            known.clear();
        }
        known.insert(key, STANDARD.encode(program));
    }
}
