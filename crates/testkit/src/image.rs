//! Docker archives made from the machine's static busybox: what `docker load` and `POST /images/load` read.

use std::{
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use sha2::{Digest, Sha256};

const BLOCK: usize = 512;

/// The static busybox of Debian's `busybox-static`.
pub fn busybox_path() -> io::Result<PathBuf> {
    ["/bin/busybox", "/usr/bin/busybox"]
        .into_iter()
        .map(PathBuf::from)
        .find(|path| path.exists())
        .ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                "no busybox: install busybox-static",
            )
        })
}

/// A docker archive tagged `tag` (such as `busybox:latest`) of one layer: busybox with all its applets,
/// `/etc/passwd`, `/tmp`; its command is `sh`.
pub fn busybox_archive(tag: &str) -> io::Result<Vec<u8>> {
    let path = busybox_path()?;
    let config = serde_json::json!({
        "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        "Cmd": ["sh"],
    });
    Ok(docker_archive(tag, &config, &busybox_layer(&path)?))
}

/// A docker archive of one layer (a finished tar) and this `config` object.
#[must_use]
pub fn docker_archive(tag: &str, config: &serde_json::Value, layer: &[u8]) -> Vec<u8> {
    let diff = hex_digest(layer);
    let image = serde_json::json!({
        "architecture": architecture(),
        "os": "linux",
        "created": "2023-11-14T22:13:20Z",
        "config": config,
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{diff}")] },
        "history": [{ "created": "2023-11-14T22:13:20Z", "created_by": "testkit" }],
    })
    .to_string();
    let config_name = format!("{}.json", hex_digest(image.as_bytes()));
    let layer_name = format!("{diff}/layer.tar");
    let manifest = serde_json::json!([{
        "Config": config_name, "RepoTags": [tag], "Layers": [layer_name],
    }])
    .to_string();
    let mut tar = TarBuilder::default();
    tar.file("manifest.json", 0o644, manifest.as_bytes())
        .file(&config_name, 0o644, image.as_bytes())
        .directory(&format!("{diff}/"), 0o755)
        .file(&layer_name, 0o644, layer);
    tar.finish()
}

fn busybox_layer(busybox: &Path) -> io::Result<Vec<u8>> {
    let applets = Command::new(busybox).arg("--list").output()?.stdout;
    let mut tar = TarBuilder::default();
    for directory in ["bin/", "dev/", "etc/", "proc/", "root/", "sys/", "var/"] {
        tar.directory(directory, 0o755);
    }
    tar.directory("tmp/", 0o1777)
        .file("bin/busybox", 0o755, &fs::read(busybox)?)
        .file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\n")
        .file("etc/group", 0o644, b"root:x:0:\n");
    for applet in String::from_utf8_lossy(&applets).lines() {
        if applet != "busybox" {
            tar.symlink(&format!("bin/{applet}"), "busybox");
        }
    }
    Ok(tar.finish())
}

/// Writes a plain ustar archive: owner root, a fixed time, so that equal content gives equal bytes.
#[derive(Debug, Default)]
pub struct TarBuilder(Vec<u8>);

impl TarBuilder {
    /// Adds a regular file.
    pub fn file(&mut self, name: &str, mode: u32, content: &[u8]) -> &mut Self {
        self.entry(b'0', name, "", mode, content)
    }

    /// Adds a directory; `name` ends with a slash.
    pub fn directory(&mut self, name: &str, mode: u32) -> &mut Self {
        self.entry(b'5', name, "", mode, &[])
    }

    /// Adds a symbolic link.
    pub fn symlink(&mut self, name: &str, target: &str) -> &mut Self {
        self.entry(b'2', name, target, 0o777, &[])
    }

    /// Adds a hard link to an earlier entry.
    pub fn hard_link(&mut self, name: &str, target: &str) -> &mut Self {
        self.entry(b'1', name, target, 0o644, &[])
    }

    /// Adds an entry of any type, however wrong: for tests of bad input. Names are cut off at 100 bytes.
    pub fn entry(
        &mut self,
        kind: u8,
        name: &str,
        link: &str,
        mode: u32,
        content: &[u8],
    ) -> &mut Self {
        let mut header = [0_u8; BLOCK];
        put(&mut header[0..100], name.as_bytes());
        put(&mut header[100..108], format!("{mode:07o}").as_bytes());
        put(&mut header[108..116], b"0000000");
        put(&mut header[116..124], b"0000000");
        put(
            &mut header[124..136],
            format!("{:011o}", content.len()).as_bytes(),
        );
        put(&mut header[136..148], b"14524700000");
        header[148..156].fill(b' ');
        header[156] = kind;
        put(&mut header[157..257], link.as_bytes());
        put(&mut header[257..265], b"ustar\x0000");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        put(&mut header[148..156], format!("{sum:06o}\0 ").as_bytes());
        self.0.extend_from_slice(&header);
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(BLOCK), 0);
        self
    }

    /// The archive, with its end mark. The builder starts anew.
    pub fn finish(&mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 2 * BLOCK]);
        std::mem::take(&mut self.0)
    }
}

fn put(field: &mut [u8], value: &[u8]) {
    let length = value.len().min(field.len());
    field[..length].copy_from_slice(&value[..length]);
}

fn hex_digest(data: &[u8]) -> String {
    Sha256::digest(data)
        .iter()
        .fold(String::new(), |mut text, byte| {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The archive as the system's own tar sees it.
    fn listing(archive: &[u8]) -> String {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        io::Write::write_all(&mut file, archive).unwrap();
        let output = Command::new("tar")
            .arg("-tvf")
            .arg(file.path())
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn tar_reads_what_is_written() {
        let mut tar = TarBuilder::default();
        tar.directory("d/", 0o755)
            .file("d/f", 0o640, b"content")
            .symlink("l", "d/f")
            .hard_link("h", "d/f");
        let text = listing(&tar.finish());
        for expected in ["drwxr-xr-x", "-rw-r-----", "l -> d/f", "h link to d/f"] {
            assert!(text.contains(expected), "{expected} in {text}");
        }
    }

    #[test]
    fn an_archive_names_its_layer_by_digest() {
        let mut tar = TarBuilder::default();
        let layer = tar.file("f", 0o644, b"x").finish();
        let archive = docker_archive("one:1", &serde_json::json!({}), &layer);
        let text = listing(&archive);
        assert!(text.contains("manifest.json"));
        assert!(text.contains(&format!("{}/layer.tar", hex_digest(&layer))));
        assert_eq!(
            archive,
            docker_archive("one:1", &serde_json::json!({}), &layer)
        );
    }
}
