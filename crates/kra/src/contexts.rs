//! Where one has logged in: hosts with their tokens, in a file that only the user can read.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use client::Trust;
use serde::{Deserialize, Serialize};
use types::{Namespace, Role};

use crate::exit::{Failure, Outcome};

/// One login.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Context {
    pub(crate) host: String,
    /// The secret.
    pub(crate) token: String,
    pub(crate) namespace: Namespace,
    pub(crate) role: Role,
    /// The fingerprint that was given at login.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) fingerprint: Option<String>,
    /// What the server's certificates are signed by, PEM, as it was told at login.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) authorities: String,
}

impl Context {
    /// What the server is known by.
    pub(crate) fn trust(&self) -> Trust {
        match (&self.fingerprint, self.authorities.as_str()) {
            (None, _) => Trust::Public,
            (Some(fingerprint), "") => Trust::Fingerprint(fingerprint.clone()),
            (Some(_), authorities) => Trust::Authorities(authorities.to_owned()),
        }
    }
}

impl std::fmt::Debug for Context {
    /// Without the token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context")
            .field("host", &self.host)
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

/// All logins, and which of them is used where none is named.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Contexts {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) current: Option<String>,
    #[serde(default)]
    pub(crate) contexts: BTreeMap<String, Context>,
}

/// Where kra keeps what is the user's: `$KR_CONFIG`, else `kra` in the user's folder of
/// configurations.
pub(crate) fn directory() -> Outcome<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(own) = set("KR_CONFIG") {
        return Ok(own.into());
    }
    set("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| set("HOME").map(|home| Path::new(&home).join(".config")))
        .map(|folder| folder.join("kra"))
        .ok_or_else(|| Failure::usage("neither HOME nor KR_CONFIG says where logins are kept"))
}

/// Writes a file as a whole, for the user alone.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    // Made with the right mode: there is no moment at which others could open it.
    let draft = path.with_extension(format!("{}.new", std::process::id()));
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&draft)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    if let Err(error) = written.and_then(|()| fs::rename(&draft, path)) {
        let _ = fs::remove_file(&draft);
        return Err(error);
    }
    Ok(())
}

impl Contexts {
    fn path() -> Outcome<PathBuf> {
        Ok(directory()?.join("contexts.json"))
    }

    pub(crate) fn load() -> Outcome<Self> {
        let path = Self::path()?;
        let about = format!("reading {}", path.display());
        match fs::read(&path) {
            Ok(text) => {
                serde_json::from_slice(&text).map_err(|error| Failure::io(&about, error.into()))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(Failure::io(&about, error)),
        }
    }

    pub(crate) fn save(&self) -> Outcome {
        let path = Self::path()?;
        let about = format!("writing {}", path.display());
        let mut text =
            serde_json::to_vec_pretty(self).map_err(|error| Failure::io(&about, error.into()))?;
        text.push(b'\n');
        write_private(&path, &text).map_err(|error| Failure::io(&about, error))
    }

    /// The one of this name, else the current one.
    pub(crate) fn chosen(&self, name: Option<&str>) -> Outcome<Option<(&str, &Context)>> {
        let Some(name) = name.or(self.current.as_deref()) else {
            return Ok(None);
        };
        match self.contexts.get_key_value(name) {
            Some((name, context)) => Ok(Some((name, context))),
            None => Err(Failure::usage(format!("there is no context {name:?}"))
                .hint("kra context ls shows those there are; kra login makes one")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn context(fingerprint: Option<&str>, authorities: &str) -> Context {
        Context {
            host: "https://kraud.example:2376".into(),
            token: "kr_abcdefghij12_secret".into(),
            namespace: "shop".parse().unwrap(),
            role: Role::Owner,
            fingerprint: fingerprint.map(str::to_owned),
            authorities: authorities.into(),
        }
    }

    #[test]
    fn what_a_server_is_known_by() {
        assert_eq!(context(None, "").trust(), Trust::Public);
        assert_eq!(
            context(Some("aa"), "").trust(),
            Trust::Fingerprint("aa".into())
        );
        assert_eq!(
            context(Some("aa"), "pem").trust(),
            Trust::Authorities("pem".into())
        );
    }

    #[test]
    fn files_are_the_users_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        for text in ["one", "two"] {
            write_private(&path, text.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
            let mode = path.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        assert_eq!(fs::read_dir(folder.path().join("a")).unwrap().count(), 1);
        assert!(!format!("{:?}", context(None, "")).contains("secret"));
    }

    #[test]
    fn the_current_one_is_chosen() {
        let mut all = Contexts::default();
        assert!(all.chosen(None).unwrap().is_none());
        assert!(all.chosen(Some("x")).is_err());
        all.contexts.insert("shop".into(), context(None, ""));
        all.current = Some("shop".into());
        assert_eq!(all.chosen(None).unwrap().unwrap().0, "shop");
        assert!(all.chosen(Some("other")).is_err());
    }
}
