//! Who asks: credentials as docker's clients send them, and the tokens bought with them.
//!
//! Owns the Basic and Bearer schemes for one operation on one registry; tokens live as long
//! as the operation and are never written anywhere.
//! Source: the distribution project's token authentication specification, RFC 7617, RFC 6750.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use base64::Engine as _;
use reqwest::{
    Method, Url,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue},
};
use serde::Deserialize;
use types::{Error, Result};

use super::{challenge, connection::read_bounded, fault, fault::Fault, outside::Http};

/// What a token answer may weigh.
const TOKEN_LIMIT: usize = 1 << 20;
/// How long a token without `expires_in` is good, by the specification.
const DEFAULT_LIFE: Duration = Duration::from_secs(60);
/// The name that is sent in place of a user's when an identity token is the credential.
const TOKEN_USER: &str = "<token>";

/// What a client gave to be known by; all empty means anonymous.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Credentials {
    /// The user's name.
    pub username: String,
    /// The user's password.
    pub password: String,
    /// A refresh token, from an earlier login.
    #[serde(rename = "identitytoken")]
    pub identity_token: String,
    /// A bearer token to be sent as it is.
    #[serde(rename = "registrytoken")]
    pub registry_token: String,
    /// Whoever asks may reach the internet alone, and not the networks around the machine.
    #[serde(skip)]
    pub public_only: bool,
}

/// Secrets stay out of logs.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

impl Credentials {
    /// A user name and its password.
    pub fn basic(username: &str, password: &str) -> Self {
        Self {
            username: username.into(),
            password: password.into(),
            ..Self::default()
        }
    }

    /// Decodes the header `X-Registry-Auth`: base64url of JSON. An empty header is anonymous.
    pub fn from_header(text: &str) -> Result<Self> {
        /// The header's forms: the fields themselves, or `auth` with both in one.
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Header {
            auth: String,
            #[serde(flatten)]
            plain: Credentials,
        }
        let bad = |what: &dyn std::fmt::Display| {
            Error::invalid(format!("invalid X-Registry-Auth header: {what}"))
        };
        let bare: String = text
            .trim()
            .trim_end_matches('=')
            .replace('+', "-")
            .replace('/', "_");
        if bare.is_empty() {
            return Ok(Self::default());
        }
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD
            .decode(bare)
            .map_err(|source| bad(&source))?;
        let fields: Option<serde_json::Map<String, serde_json::Value>> =
            serde_json::from_slice(&bytes).map_err(|source| bad(&source))?;
        let mut fields = fields.unwrap_or_default();
        // Clients write null for what they leave out, as Go reads it.
        fields.retain(|_, value| !value.is_null());
        let header: Header = serde_json::from_value(serde_json::Value::Object(fields))
            .map_err(|source| bad(&source))?;
        let mut found = header.plain;
        if found.username.is_empty() && !header.auth.is_empty() {
            let pair = base64::engine::general_purpose::STANDARD
                .decode(&header.auth)
                .map_err(|source| bad(&source))?;
            let pair = String::from_utf8(pair).map_err(|source| bad(&source))?;
            let (username, password) = pair
                .split_once(':')
                .ok_or_else(|| bad(&"auth is not user:password"))?;
            (found.username, found.password) =
                (username.into(), password.trim_end_matches('\0').into());
        }
        Ok(found)
    }

    fn basic_header(&self) -> Option<HeaderValue> {
        if self.username.is_empty() {
            return None;
        }
        let pair = format!("{}:{}", self.username, self.password);
        secret(&format!(
            "Basic {}",
            base64::engine::general_purpose::STANDARD.encode(pair)
        ))
    }
}

fn secret(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// How the registry wants to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Scheme {
    /// As far as is known: not at all.
    Open,
    Basic,
    Bearer {
        realm: Url,
        service: String,
    },
}

/// A token and when it ends.
struct Token {
    header: HeaderValue,
    until: Instant,
}

struct State {
    scheme: Scheme,
    scopes: BTreeSet<String>,
    token: Option<Token>,
    /// The refresh token that the token server gave, if it did.
    refresh: String,
}

/// Gives every request of one operation its `Authorization`.
pub(crate) struct Authorizer {
    credentials: Credentials,
    /// A login asks for a refresh token too.
    offline: bool,
    state: tokio::sync::Mutex<State>,
}

/// An `Authorization` value and whether it was got for this very request.
pub(crate) struct Grant {
    pub(crate) header: Option<HeaderValue>,
    pub(crate) fresh: bool,
}

impl Authorizer {
    /// For `scopes` such as `repository:library/busybox:pull`.
    pub(crate) fn new(
        credentials: Credentials,
        scopes: impl IntoIterator<Item = String>,
        offline: bool,
    ) -> Self {
        let state = State {
            scheme: Scheme::Open,
            scopes: scopes.into_iter().collect(),
            token: None,
            refresh: String::new(),
        };
        Self {
            credentials,
            offline,
            state: tokio::sync::Mutex::new(state),
        }
    }

    /// The refresh token that a login brought.
    pub(crate) async fn refresh_token(&self) -> String {
        self.state.lock().await.refresh.clone()
    }

    /// Whether the networks around the machine are out of bounds.
    pub(crate) fn public_only(&self) -> bool {
        self.credentials.public_only
    }

    /// What the next request carries.
    pub(crate) async fn grant(&self, http: &Http) -> Result<Grant, Fault> {
        if !self.credentials.registry_token.is_empty() {
            return Ok(Grant {
                header: secret(&format!("Bearer {}", self.credentials.registry_token)),
                fresh: true,
            });
        }
        // Held while a token is fetched: parallel requests wait for it instead of fetching too.
        let mut state = self.state.lock().await;
        match state.scheme.clone() {
            Scheme::Open => Ok(Grant {
                header: None,
                fresh: false,
            }),
            Scheme::Basic => {
                let header = self
                    .credentials
                    .basic_header()
                    .ok_or(Fault::NoCredentials)?;
                Ok(Grant {
                    header: Some(header),
                    fresh: true,
                })
            }
            Scheme::Bearer { realm, service } => {
                if let Some(token) = state
                    .token
                    .as_ref()
                    .filter(|token| token.until > Instant::now())
                {
                    return Ok(Grant {
                        header: Some(token.header.clone()),
                        fresh: false,
                    });
                }
                let (token, refresh) = self.buy(http, &realm, &service, &state.scopes).await?;
                let header = token.header.clone();
                state.token = Some(token);
                if !refresh.is_empty() {
                    state.refresh = refresh;
                }
                Ok(Grant {
                    header: Some(header),
                    fresh: true,
                })
            }
        }
    }

    /// Learns from a 401; `used` is what the refused request carried. Says whether asking
    /// again can help.
    pub(crate) async fn refused(&self, headers: &HeaderMap, used: &Grant) -> bool {
        if !self.credentials.registry_token.is_empty() {
            return false;
        }
        let challenges = challenge::parse(headers);
        let bearer = challenges.iter().find_map(|one| {
            let realm = one.get("realm").filter(|_| one.scheme == "bearer")?;
            let realm = Url::parse(realm)
                .ok()
                .filter(|url| matches!(url.scheme(), "http" | "https"))?;
            Some((one, realm))
        });
        let mut state = self.state.lock().await;
        let before = state.scheme.clone();
        if let Some((one, realm)) = bearer {
            state.scheme = Scheme::Bearer {
                realm,
                service: one.get("service").unwrap_or_default().into(),
            };
            let wanted = one
                .get("scope")
                .unwrap_or_default()
                .split_whitespace()
                .map(str::to_owned);
            let known = state.scopes.len();
            state
                .scopes
                .extend(wanted.filter(|scope| scope.starts_with("repository:")));
            let more = state.scopes.len() > known;
            // Another request may have renewed it meanwhile.
            if more
                || state
                    .token
                    .as_ref()
                    .is_some_and(|token| used.header.as_ref() == Some(&token.header))
            {
                state.token = None;
            }
            return more || !used.fresh || before != state.scheme;
        }
        if challenges.iter().any(|one| one.scheme == "basic") {
            state.scheme = Scheme::Basic;
        }
        before != state.scheme
    }

    /// Gets a token for `scopes`; the second value is a refresh token or empty.
    async fn buy(
        &self,
        http: &Http,
        realm: &Url,
        service: &str,
        scopes: &BTreeSet<String>,
    ) -> Result<(Token, String), Fault> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Answer {
            token: String,
            access_token: String,
            refresh_token: String,
            expires_in: Option<u64>,
        }
        let asked = Instant::now();
        let method = if self.credentials.identity_token.is_empty() {
            Method::GET
        } else {
            Method::POST
        };
        http.may_reach(realm)?;
        let request = self
            .token_request(http, realm, service, scopes)
            .timeout(Duration::from_secs(60));
        let response = match request.send().await {
            Ok(response) => response,
            Err(source) => {
                return Err(fault::from_transport(source, realm)
                    .await
                    .during(method, realm));
            }
        };
        let (status, headers) = (response.status(), response.headers().clone());
        let body = read_bounded(response, TOKEN_LIMIT, realm).await?;
        if !status.is_success() {
            return Err(fault::from_answer(status, &headers, &body));
        }
        let answer: Answer = serde_json::from_slice(&body).map_err(|source| {
            Error::system(format!(
                "unable to decode token response of {realm}: {source}"
            ))
        })?;
        let token = if answer.token.is_empty() {
            answer.access_token
        } else {
            answer.token
        };
        let header = secret(&format!("Bearer {token}")).filter(|_| !token.is_empty());
        let header = header.ok_or_else(|| {
            Error::system("authorization server did not include a token in the response")
        })?;
        let life = answer
            .expires_in
            .map_or(DEFAULT_LIFE, Duration::from_secs)
            .clamp(Duration::from_secs(1), Duration::from_secs(86_400));
        // Renewed a little early, so that no request starts with a token that ends under way.
        Ok((
            Token {
                header,
                until: asked + life.mul_f32(0.8),
            },
            answer.refresh_token,
        ))
    }

    fn token_request(
        &self,
        http: &Http,
        realm: &Url,
        service: &str,
        scopes: &BTreeSet<String>,
    ) -> reqwest::RequestBuilder {
        let Credentials {
            username,
            identity_token,
            ..
        } = &self.credentials;
        let scopes: Vec<&str> = scopes.iter().map(String::as_str).collect();
        if !identity_token.is_empty() {
            let joined = scopes.join(" ");
            let mut form = Url::parse("form:").unwrap_or_else(|_| realm.clone());
            form.query_pairs_mut().extend_pairs([
                ("grant_type", "refresh_token"),
                ("service", service),
                ("client_id", "kraud"),
                ("scope", joined.as_str()),
                ("refresh_token", identity_token.as_str()),
            ]);
            let body = form.query().unwrap_or_default().to_owned();
            return http
                .post(realm.clone())
                .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(body);
        }
        let mut url = realm.clone();
        {
            let mut query = url.query_pairs_mut();
            if !service.is_empty() {
                query.append_pair("service", service);
            }
            scopes.iter().for_each(|scope| {
                query.append_pair("scope", scope);
            });
            if !username.is_empty() && username != TOKEN_USER {
                query.append_pair("account", username);
            }
            if self.offline {
                query
                    .append_pair("offline_token", "true")
                    .append_pair("client_id", "kraud");
            }
        }
        let request = http.get(url).header(ACCEPT, "application/json");
        match self.credentials.basic_header() {
            Some(header) => request.header(AUTHORIZATION, header),
            None => request,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(json: &str) -> String {
        base64::engine::general_purpose::URL_SAFE.encode(json)
    }

    #[test]
    fn header_forms() {
        let found = Credentials::from_header(&encode(
            r#"{"username":"u","password":"p?>","serveraddress":"x"}"#,
        ))
        .unwrap();
        assert_eq!(found, Credentials::basic("u", "p?>"));
        let found = Credentials::from_header(&encode(r#"{"auth":"dTpw"}"#)).unwrap();
        assert_eq!(found, Credentials::basic("u", "p"));
        let found =
            Credentials::from_header(&encode(r#"{"identitytoken":"i","registrytoken":"r"}"#))
                .unwrap();
        assert_eq!(
            (found.identity_token.as_str(), found.registry_token.as_str()),
            ("i", "r")
        );
        for empty in ["", "  ", &encode("{}"), &encode("null")] {
            assert_eq!(
                Credentials::from_header(empty).unwrap(),
                Credentials::default()
            );
        }
        for bad in ["%", "aaaa", &encode("[1"), &encode(r#"{"auth":"!"}"#)] {
            assert!(Credentials::from_header(bad).is_err(), "{bad}");
        }
        assert!(!format!("{:?}", Credentials::basic("u", "hidden")).contains("hidden"));
    }
}
