//! `POST /auth`: checks credentials against a registry.

use agent::images::Credentials;
use axum::response::Response;
use serde::Deserialize;
use types::Result;

use super::{call, router::Call, wire::system::AuthResponse};

/// `AuthConfig`
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct AuthConfig {
    username: String,
    password: String,
    serveraddress: String,
}

/// `POST /auth`
pub(super) async fn check(mut call: Call) -> Result<Response> {
    let config: AuthConfig = call.json().await?;
    let credentials = Credentials::basic(&config.username, &config.password);
    let (status, identity_token) = call
        .state
        .registry_login(&call.scope(), &credentials, &config.serveraddress)
        .await?;
    call::json(&AuthResponse {
        status,
        identity_token,
    })
}
