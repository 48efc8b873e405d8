//! What is common in compose files, read without docker's plugin: one file, its services with
//! their images and mounts, variables with their defaults. What it does not know it leaves alone;
//! what would change the meaning of what it knows (`extends`, `include`, several files) it refuses.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value, json};

use crate::exit::{Failure, Outcome};

/// Names of compose files, in the order in which docker compose looks for them.
const NAMES: [&str; 4] = [
    "compose.yaml",
    "compose.yml",
    "docker-compose.yaml",
    "docker-compose.yml",
];

fn wrong(file: &Path, what: impl std::fmt::Display) -> Failure {
    Failure::usage(format!(
        "{}: {what}; with docker's compose plugin all of compose is understood: install docker-compose-plugin",
        file.display()
    ))
}

/// A project in the form of `docker compose config --format json`.
pub(super) fn read(files: &[PathBuf]) -> Outcome<Value> {
    let file = match files {
        [] => NAMES
            .iter()
            .map(PathBuf::from)
            .find(|name| name.exists())
            .ok_or_else(|| {
                Failure::usage(
                    "there is no compose file here: name an image to push, or a file with --file",
                )
            })?,
        [file] => file.clone(),
        [first, ..] => return Err(wrong(first, "several files are not put together")),
    };
    let reading = |error| Failure::io(&format!("reading {}", file.display()), error);
    let text = fs::read_to_string(&file).map_err(reading)?;
    let folder = file
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder
        .unwrap_or(Path::new("."))
        .canonicalize()
        .map_err(reading)?;
    let mut variables = variables(&fs::read_to_string(folder.join(".env")).unwrap_or_default());
    variables.extend(std::env::vars());
    let document: Value = yaml_serde::from_str(&text).map_err(|error| wrong(&file, error))?;
    project(document, &folder, &variables).map_err(|what| wrong(&file, what))
}

/// `NAME=value` lines.
fn variables(text: &str) -> HashMap<String, String> {
    let line = |line: &str| {
        let (name, value) = line.trim().split_once('=')?;
        let value = value.trim();
        let bare = ['"', '\'']
            .iter()
            .find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote))
            .unwrap_or(value);
        (!name.starts_with('#')).then(|| (name.trim().to_owned(), bare.to_owned()))
    };
    text.lines().filter_map(line).collect()
}

/// `$NAME`, `${NAME}`, `${NAME:-default}`, `${NAME-default}`, `${NAME:?words}`, `$$`.
fn filled(text: &str, variables: &HashMap<String, String>) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(after) = rest.strip_prefix('{') {
            let end = after
                .find('}')
                .ok_or_else(|| format!("{text:?}: a brace is not closed"))?;
            let (inner, after) = (&after[..end], &after[end + 1..]);
            let name_end = inner
                .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
                .unwrap_or(inner.len());
            let (name, operation) = inner.split_at(name_end);
            let value = variables.get(name).map(String::as_str);
            let nonempty = value.filter(|value| !value.is_empty());
            let fallback = |sign: &str| operation.strip_prefix(sign);
            out.push_str(match () {
                () if operation.is_empty() => value.unwrap_or_default(),
                () if fallback(":-").is_some() => nonempty.or(fallback(":-")).unwrap_or_default(),
                () if fallback("-").is_some() => value.or(fallback("-")).unwrap_or_default(),
                () if fallback(":?").is_some() => {
                    nonempty.ok_or_else(|| format!("the variable {name} is not set"))?
                }
                () if fallback("?").is_some() => {
                    value.ok_or_else(|| format!("the variable {name} is not set"))?
                }
                () => return Err(format!("{text:?} is not understood")),
            });
            rest = after;
        } else {
            let end = rest
                .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
                .unwrap_or(rest.len());
            out.push_str(variables.get(&rest[..end]).map_or("", String::as_str));
            rest = &rest[end..];
        }
    }
    out.push_str(rest);
    Ok(out)
}

fn fill(value: Value, variables: &HashMap<String, String>) -> Result<Value, String> {
    Ok(match value {
        Value::String(text) => filled(&text, variables)?.into(),
        Value::Array(list) => list
            .into_iter()
            .map(|one| fill(one, variables))
            .collect::<Result<Vec<_>, _>>()?
            .into(),
        Value::Object(map) => map
            .into_iter()
            .map(|(key, one)| Ok((key, fill(one, variables)?)))
            .collect::<Result<Map<_, _>, String>>()?
            .into(),
        other => other,
    })
}

fn project(
    document: Value,
    folder: &Path,
    variables: &HashMap<String, String>,
) -> Result<Value, String> {
    let document = fill(document, variables)?;
    if document.get("include").is_some() {
        return Err("include is not understood".into());
    }
    let name = match document["name"]
        .as_str()
        .or(variables.get("COMPOSE_PROJECT_NAME").map(String::as_str))
    {
        Some(name) => name.to_owned(),
        None => folder
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .to_lowercase(),
    };
    let name: String = name
        .chars()
        .filter(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_'))
        .collect();
    let mut services = Map::new();
    for (service, value) in document["services"].as_object().into_iter().flatten() {
        if value.get("extends").is_some() {
            return Err(format!("service {service}: extends is not understood"));
        }
        let mut value = value.clone();
        // Has a short form, and only `kra up` asks for it, with the plugin.
        value
            .as_object_mut()
            .and_then(|value| value.remove("depends_on"));
        let volumes = value["volumes"].as_array().cloned().unwrap_or_default();
        value["volumes"] = volumes.iter().map(|one| mount(one, folder)).collect();
        for uses in ["configs", "secrets"] {
            let list = value[uses].as_array().cloned().unwrap_or_default();
            value[uses] = list
                .into_iter()
                .map(|one| match one {
                    Value::String(source) => json!({ "source": source }),
                    other => other,
                })
                .collect();
        }
        services.insert(service.clone(), value);
    }
    let contents = |what: &str| -> BTreeMap<String, Value> {
        let known = document[what].as_object().into_iter().flatten();
        known
            .map(|(name, value)| {
                let file = value["file"].as_str().map(|file| absolute(file, folder));
                (name.clone(), json!({ "file": file }))
            })
            .collect()
    };
    Ok(json!({
        "name": name,
        "services": services,
        "configs": contents("configs"),
        "secrets": contents("secrets"),
    }))
}

fn absolute(path: &str, folder: &Path) -> PathBuf {
    let path = match (path.strip_prefix("~/"), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) => Path::new(&home).join(rest),
        _ => PathBuf::from(path),
    };
    let mut clean = PathBuf::new();
    for part in folder.join(path).components() {
        match part {
            std::path::Component::ParentDir => drop(clean.pop()),
            std::path::Component::CurDir => {}
            other => clean.push(other),
        }
    }
    clean
}

/// A mount of a service in its long form.
fn mount(value: &Value, folder: &Path) -> Value {
    match value {
        Value::String(text) => {
            let source = text.split(':').next().unwrap_or_default();
            let is_path = text.contains(':') && source.starts_with(['.', '/', '~']);
            match is_path {
                true => json!({ "type": "bind", "source": absolute(source, folder) }),
                false => json!({ "type": "volume", "source": source }),
            }
        }
        other => {
            let mut other = other.clone();
            if other["type"] == "bind"
                && let Some(source) = other["source"].as_str().map(str::to_owned)
            {
                other["source"] = json!(absolute(&source, folder));
            }
            other
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::project::Project;

    fn known() -> HashMap<String, String> {
        variables("TAG=1.2\n# no=1\nEMPTY=\nQUOTED=\"a b\"\n")
    }

    #[test]
    fn variables_are_filled_in() {
        let fill = |text| filled(text, &known());
        assert_eq!(fill("web:${TAG}-$TAG").unwrap(), "web:1.2-1.2");
        assert_eq!(fill("${NO:-x}${EMPTY:-y}${EMPTY-z}$$$NO").unwrap(), "xy$");
        assert_eq!(fill("${QUOTED}").unwrap(), "a b");
        for bad in ["${TAG", "${NO:?needed}", "${TAG/x}"] {
            assert!(fill(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_project() {
        let text = r#"
services:
  web:
    image: "shop/web:${TAG}"
    deploy: { replicas: 2 }
    depends_on: [built]
    volumes:
      - ./site:/site
      - ../shared/x:/x:ro
      - data:/data
      - { type: bind, source: ./app.conf, target: /a }
    secrets: [key]
    configs: [{ source: conf, target: /c }]
  built: { build: . }
configs: { conf: { file: ./c.conf } }
secrets: { key: { file: /etc/key } }
"#;
        let document: Value = yaml_serde::from_str(text).unwrap();
        let read = project(document, Path::new("/src/My Shop"), &known()).unwrap();
        let project: Project = serde_json::from_value(read).unwrap();
        assert_eq!(project.name, "myshop");
        assert_eq!(project.images(), ["myshop-built", "shop/web:1.2"]);
        assert_eq!(project.services["web"].replicas(), 2);
        let paths: Vec<_> = project
            .local_paths()
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        assert_eq!(
            paths,
            [
                "/etc/key",
                "/src/My Shop/app.conf",
                "/src/My Shop/c.conf",
                "/src/My Shop/site",
                "/src/shared/x"
            ]
        );
        for bad in ["include: [x.yaml]", "services: { a: { extends: b } }"] {
            let document: Value = yaml_serde::from_str(bad).unwrap();
            assert!(super::project(document, Path::new("/x"), &known()).is_err());
        }
    }
}
