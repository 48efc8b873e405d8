//! Lets callers in: finds out who makes a request, and whether that is enough for the call.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    extract::Request,
    http::{HeaderValue, StatusCode, header, request::Parts},
    response::Response,
};
use engine::{Engine, Scope};
use identity::Caller;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::ServiceExt as _;
use types::{Access, Error, Kind, Namespace, Result, Time, native::AuditEntry};

use crate::{
    docker::{dispatch::is_change, error, query::Query},
    http::{self, Peer},
    native,
};

/// `inner`, behind the question who calls.
pub(crate) fn behind(inner: axum::Router, engine: Engine) -> axum::Router {
    let doors = Arc::new(Doors::default());
    axum::Router::new().fallback(move |request: Request| {
        let (inner, engine, doors) = (inner.clone(), engine.clone(), doors.clone());
        let is_change = is_change(request.method());
        let work = async move { let_in(inner, &engine, &doors, request).await };
        async move {
            if !is_change {
                return work.await;
            }
            // What changes something is carried to its end even if the client goes away
            // meanwhile: a stop that nobody waits for is still a stop. It takes its turn as long
            // as it lasts, and is written down.
            tokio::spawn(work).await.unwrap_or_else(|_| {
                error::response(&Error::system(
                    "internal error; the log of the daemon tells more",
                ))
            })
        }
    })
}

/// What is counted, so that nobody stands in another's way.
#[derive(Debug, Default)]
struct Doors {
    attempts: Attempts,
    tenants: Mutex<HashMap<Namespace, Arc<Share>>>,
}

/// What a tenant may have at once.
#[derive(Debug)]
struct Share {
    /// Calls until their answers begin.
    calls: Arc<Semaphore>,
    /// Connections, also those that have become streams.
    connections: Arc<Semaphore>,
}

impl Share {
    const CALLS: usize = 64;
    const CONNECTIONS: usize = 2048;
    /// How long a call may wait for its turn.
    const PATIENCE: Duration = Duration::from_secs(30);
}

impl Doors {
    /// A tenant's share; the operator has no bounds.
    fn share(&self, namespace: &Namespace) -> Option<Arc<Share>> {
        if *namespace == Namespace::default() {
            return None;
        }
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        let share = tenants.entry(namespace.clone()).or_insert_with(|| {
            Arc::new(Share {
                calls: Arc::new(Semaphore::new(Share::CALLS)),
                connections: Arc::new(Semaphore::new(Share::CONNECTIONS)),
            })
        });
        Some(share.clone())
    }

    /// Waits for a call's turn. The others of the same tenant are what it waits for.
    async fn turn(&self, caller: &Caller, parts: &Parts) -> Result<Option<OwnedSemaphorePermit>> {
        let Some(share) = self.share(&caller.namespace) else {
            return Ok(None);
        };
        if let Some(Peer::Remote { session, .. }) = parts.extensions.get()
            && !session.has_place(&share.connections)
        {
            return Err(Error::new(
                Kind::TooMany,
                format!(
                    "the namespace {} has {} connections open, and may not have more",
                    caller.namespace,
                    Share::CONNECTIONS
                ),
            ));
        }
        match tokio::time::timeout(Share::PATIENCE, share.calls.clone().acquire_owned()).await {
            Ok(turn) => Ok(turn.ok()),
            Err(_) => Err(Error::new(
                Kind::TooMany,
                format!(
                    "the namespace {} has {} calls under way, and none has ended within {} s: try again later",
                    caller.namespace,
                    Share::CALLS,
                    Share::PATIENCE.as_secs()
                ),
            )),
        }
    }
}

async fn let_in(inner: axum::Router, engine: &Engine, doors: &Doors, request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    let known = match caller(engine, &parts) {
        Ok(caller) => doors.turn(&caller, &parts).await.map(|turn| (caller, turn)),
        Err(refusal) => Err(refusal),
    };
    match known {
        // It is another's turn when the answer begins, whatever streams then.
        Ok((caller, _turn)) => {
            if let Some(Peer::Remote { session, .. }) = parts.extensions.get() {
                session.ends_with(&caller);
            }
            // Nothing behind this needs it, and nothing may log it.
            parts.headers.remove(header::AUTHORIZATION);
            parts.extensions.insert(Scope::from(caller.clone()));
            let entry = entry(&parts, Some(&caller));
            let is_change = is_change(&parts.method);
            let response = match inner.oneshot(Request::from_parts(parts, body)).await {
                Ok(response) => response,
                Err(never) => match never {},
            };
            let status = response.status();
            if is_change || status == StatusCode::FORBIDDEN {
                engine.note(AuditEntry {
                    status: status.as_u16(),
                    ..entry
                });
            }
            response
        }
        Err(refusal) => {
            let address = match parts.extensions.get() {
                Some(Peer::Remote { address, .. }) => Some(address.ip()),
                _ => None,
            };
            tracing::debug!(?address, method = %parts.method, path = parts.uri.path(), error = %refusal.message, "not let in");
            let many = refusal.kind == Kind::Unauthorized
                && address.is_some_and(|address| doors.attempts.failed(address));
            let refusal = if many {
                Error::new(
                    Kind::TooMany,
                    "too many calls that were not let in: try again in a minute",
                )
            } else {
                refusal
            };
            if !many {
                engine.note(AuditEntry {
                    status: error::status(refusal.kind).as_u16(),
                    ..entry(&parts, None)
                });
            }
            let mut response = if parts.uri.path().starts_with(native::PREFIX) {
                native::dispatch::refusal(refusal)
            } else {
                error::response(&refusal)
            };
            if response.status() == StatusCode::UNAUTHORIZED {
                response.headers_mut().insert(
                    header::WWW_AUTHENTICATE,
                    HeaderValue::from_static("Bearer realm=\"kraud\""),
                );
            }
            response
        }
    }
}

/// What is written down of a request; the status is not known yet.
fn entry(parts: &Parts, caller: Option<&Caller>) -> AuditEntry {
    /// Longer paths and names say nothing more.
    const LONGEST: usize = 300;
    let mut call = format!("{} {}", parts.method, parts.uri.path());
    let query = Query::parse(parts.uri.query());
    if let Some(name) = query.nonempty("name") {
        call = format!("{call} {name}");
    }
    call = call
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(LONGEST)
        .collect();
    AuditEntry {
        time: Time::now(),
        namespace: caller.map(|caller| caller.namespace.clone()),
        role: caller.map(|caller| caller.role),
        token: caller.and_then(|caller| caller.token.clone()),
        by: caller.map(|caller| caller.by.as_str().to_owned()),
        from: match parts.extensions.get() {
            Some(Peer::Remote { address, .. }) => address.ip().to_string(),
            _ => "socket".to_owned(),
        },
        call,
        status: 0,
    }
}

/// Who makes a request: by the socket it came over, by a token, or by the certificate that the
/// connection began with.
fn caller(engine: &Engine, parts: &Parts) -> Result<Caller> {
    let unknown = || {
        Error::new(
            Kind::Unauthorized,
            "who is there? Show a token (Authorization: Bearer, as kra does after kra login) or a client certificate (kra setup docker)",
        )
    };
    let token = match parts.headers.get(header::AUTHORIZATION) {
        None => None,
        Some(value) => Some(bearer(value).ok_or_else(unknown)?),
    };
    let identities = engine.identities();
    match (parts.extensions.get::<Peer>(), token) {
        (_, Some(token)) => identities.by_token(token),
        (Some(Peer::Local), None) => Ok(Caller::operator()),
        (
            Some(Peer::Remote {
                certificate: Some(certificate),
                ..
            }),
            None,
        ) => identities.by_certificate(certificate),
        _ => Err(unknown()),
    }
}

/// The token of a header (RFC 6750).
fn bearer(value: &HeaderValue) -> Option<&str> {
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// On whose behalf a call is made. Fails unless the caller may make one that demands `access`.
pub(crate) fn check(parts: &Parts, access: Access) -> Result<Scope> {
    let scope = parts
        .extensions
        .get::<Scope>()
        .ok_or_else(|| Error::new(Kind::Unauthorized, "nobody has asked who calls"))?;
    let role = scope.caller.role;
    if role.may(access) {
        return Ok(scope.clone());
    }
    Err(Error::forbidden(match access {
        Access::Operate => "only the operator of this kraud may do this".to_owned(),
        _ => format!(
            "the role {role} may not do this: ask the owner of the namespace {} for a token with another",
            scope.namespace
        ),
    }))
}

/// What a call needs, for descriptions.
pub(crate) fn in_words(access: Access) -> &'static str {
    match access {
        Access::Known => "any",
        Access::Read => "operator, owner, reader",
        Access::Push => "operator, owner, push",
        Access::Write => "operator, owner",
        Access::Operate => "operator",
    }
}

/// Calls that were not let in, by the network they came from.
#[derive(Debug, Default)]
struct Attempts(Mutex<HashMap<IpAddr, (Instant, u32)>>);

impl Attempts {
    const WINDOW: Duration = Duration::from_secs(60);
    /// So many are answered in a window.
    const MOST: u32 = 60;
    /// So many addresses are kept in mind.
    const ADDRESSES: usize = 10_000;

    /// Counts one; true when there have been too many.
    fn failed(&self, address: IpAddr) -> bool {
        let address = http::network_of(address);
        let now = Instant::now();
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= Self::ADDRESSES {
            seen.retain(|_, (since, _)| now.duration_since(*since) < Self::WINDOW);
        }
        if seen.len() >= Self::ADDRESSES && !seen.contains_key(&address) {
            return true;
        }
        let (since, count) = seen.entry(address).or_insert((now, 0));
        if now.duration_since(*since) >= Self::WINDOW {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        *count > Self::MOST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bearers() {
        let of = |text| bearer(&HeaderValue::from_static(text)).map(str::to_owned);
        assert_eq!(of("Bearer kr_x"), Some("kr_x".into()));
        assert_eq!(of("bearer  kr_x "), Some("kr_x".into()));
        assert_eq!(of("Basic eDp5"), None);
        assert_eq!(of("kr_x"), None);
    }

    #[test]
    fn attempts_are_counted_by_address() {
        let attempts = Attempts::default();
        let (one, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        for _ in 0..Attempts::MOST {
            assert!(!attempts.failed(one));
        }
        assert!(attempts.failed(one));
        assert!(!attempts.failed(other));
    }
}
