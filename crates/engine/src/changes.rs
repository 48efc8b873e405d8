//! Dockerfile instructions in `docker commit --change` and `docker import --change`.

use types::{
    Config, Error, Result,
    container::{Empty, HealthConfig},
};

/// Applies instructions to a configuration, in order.
///
/// Understood are CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL,
/// USER, VOLUME and WORKDIR; others fail as they do in docker.
pub(crate) fn apply(config: &mut Config, instructions: &[String]) -> Result<()> {
    for line in instructions
        .iter()
        .flat_map(|text| text.lines())
        .map(str::trim)
        .filter(|line| !line.is_empty())
    {
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        let instruction = word.to_ascii_uppercase();
        if rest.is_empty() {
            return Err(Error::invalid(format!(
                "{instruction} requires at least one argument"
            )));
        }
        apply_one(config, &instruction, rest)?;
    }
    Ok(())
}

fn apply_one(config: &mut Config, instruction: &str, rest: &str) -> Result<()> {
    match instruction {
        "CMD" => config.cmd = Some(command(rest)?),
        "ENTRYPOINT" => config.entrypoint = Some(command(rest)?),
        "ENV" => {
            let env = config.env.get_or_insert_default();
            for (name, value) in pairs(rest)? {
                env.retain(|other| other.split('=').next() != Some(&name));
                env.push(format!("{name}={value}"));
            }
        }
        "LABEL" => config.labels.get_or_insert_default().extend(pairs(rest)?),
        "EXPOSE" => {
            for port in words(rest)? {
                let port: types::port::Port = port.parse()?;
                config
                    .exposed_ports
                    .get_or_insert_default()
                    .insert(port.to_string(), Empty {});
            }
        }
        "VOLUME" => {
            let list = if rest.starts_with('[') {
                json_list(rest)?
            } else {
                words(rest)?
            };
            for path in list {
                config
                    .volumes
                    .get_or_insert_default()
                    .insert(path, Empty {});
            }
        }
        "USER" => config.user = rest.into(),
        "WORKDIR" => {
            config.working_dir = if rest.starts_with('/') {
                rest.into()
            } else {
                format!("{}/{rest}", config.working_dir.trim_end_matches('/'))
            };
        }
        "STOPSIGNAL" => {
            crate::containers::check_signal(rest)?;
            config.stop_signal = Some(rest.into());
        }
        "ONBUILD" => config.on_build.get_or_insert_default().push(rest.into()),
        "HEALTHCHECK" => config.healthcheck = Some(healthcheck(rest)?),
        other => {
            return Err(Error::invalid(format!(
                "{other} is not a valid change command"
            )));
        }
    }
    Ok(())
}

/// The JSON form as it is, the shell form under a shell.
fn command(rest: &str) -> Result<Vec<String>> {
    if rest.starts_with('[')
        && let Ok(list) = json_list(rest)
    {
        return Ok(list);
    }
    Ok(vec!["/bin/sh".into(), "-c".into(), rest.into()])
}

fn json_list(rest: &str) -> Result<Vec<String>> {
    serde_json::from_str(rest).map_err(|_| {
        Error::invalid(format!(
            "invalid change: {rest} is not a JSON list of strings"
        ))
    })
}

fn healthcheck(rest: &str) -> Result<HealthConfig> {
    if rest.eq_ignore_ascii_case("none") {
        return Ok(HealthConfig {
            test: Some(vec!["NONE".into()]),
            ..HealthConfig::default()
        });
    }
    let Some(line) = rest.strip_prefix("CMD ").map(str::trim) else {
        return Err(Error::invalid(
            "HEALTHCHECK in a change: want NONE or CMD and a command",
        ));
    };
    let test = match json_list(line) {
        Ok(list) => std::iter::once("CMD".to_owned()).chain(list).collect(),
        Err(_) => vec!["CMD-SHELL".into(), line.into()],
    };
    Ok(HealthConfig {
        test: Some(test),
        ..HealthConfig::default()
    })
}

/// `name=value …`, or the old form `name value with spaces`.
fn pairs(rest: &str) -> Result<Vec<(String, String)>> {
    let list = words(rest)?;
    if !list.first().is_some_and(|first| first.contains('=')) {
        let (name, value) = rest
            .split_once(char::is_whitespace)
            .ok_or_else(|| Error::invalid(format!("{rest}: must have a name and a value")))?;
        return Ok(vec![(name.into(), value.trim().into())]);
    }
    list.iter()
        .map(|word| match word.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
            _ => Err(Error::invalid(format!(
                "Syntax error - can't find = in \"{word}\". Must be of the form: name=value"
            ))),
        })
        .collect()
}

/// Words as a shell splits them, quotes and backslashes understood.
fn words(text: &str) -> Result<Vec<String>> {
    let (mut list, mut word, mut open, mut quote) = (Vec::new(), String::new(), false, None);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some('\''), c) => word.push(c),
            (_, '\\') => word.extend(chars.next()),
            (Some(_), c) => word.push(c),
            (None, '"' | '\'') => (quote, open) = (Some(c), true),
            (None, c) if c.is_whitespace() => {
                if open || !word.is_empty() {
                    list.push(std::mem::take(&mut word));
                    open = false;
                }
            }
            (None, c) => word.push(c),
        }
    }
    if quote.is_some() {
        return Err(Error::invalid(format!(
            "unexpected end of statement while looking for matching quote: {text}"
        )));
    }
    if open || !word.is_empty() {
        list.push(word);
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions() {
        let mut config = Config {
            env: Some(vec!["A=0".into()]),
            ..Config::default()
        };
        let lines = [
            r#"CMD ["sh", "-c", "x"]"#,
            "ENTRYPOINT run me",
            r#"ENV A=1 B="two words""#,
            "env C three words",
            "EXPOSE 80 53/udp",
            "VOLUME /data",
            "USER web",
            "WORKDIR /srv",
            "workdir sub",
            r"LABEL a=b c=d\ e",
            "STOPSIGNAL SIGINT",
        ];
        apply(&mut config, &lines.map(str::to_owned)).unwrap();
        assert_eq!(config.cmd.unwrap(), ["sh", "-c", "x"]);
        assert_eq!(config.entrypoint.unwrap(), ["/bin/sh", "-c", "run me"]);
        assert_eq!(config.env.unwrap(), ["A=1", "B=two words", "C=three words"]);
        assert_eq!(
            config
                .exposed_ports
                .unwrap()
                .into_keys()
                .collect::<Vec<_>>(),
            ["53/udp", "80/tcp"]
        );
        assert_eq!(config.working_dir, "/srv/sub");
        assert_eq!(config.labels.unwrap()["c"], "d e");
    }

    #[test]
    fn refused() {
        for bad in [
            "FROM x",
            "CMD",
            "ENV =x",
            "LABEL a=\"b",
            "EXPOSE http",
            "STOPSIGNAL NOPE",
        ] {
            assert!(
                apply(&mut Config::default(), &[bad.to_owned()]).is_err(),
                "{bad}"
            );
        }
    }
}
