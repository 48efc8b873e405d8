//! Tenants, tokens, certificates.

use axum::{http::StatusCode, response::Response};
use identity::AuditFilter;
use types::{Namespace, Result, native};

use super::table::Call;
use crate::docker::call::{empty, json, json_with};

fn namespace(call: &Call) -> Result<Option<Namespace>> {
    call.query.nonempty("namespace").map(str::parse).transpose()
}

/// `GET /whoami`
pub(super) async fn whoami(call: Call) -> Result<Response> {
    json(&call.state.whoami(&call.scope()))
}

/// `GET /tokens`
pub(super) async fn tokens(call: Call) -> Result<Response> {
    let tokens = call.state.token_list(&call.scope(), namespace(&call)?)?;
    json(&native::TokenList { tokens })
}

/// `POST /tokens`
pub(super) async fn token_create(mut call: Call) -> Result<Response> {
    let wanted: native::TokenCreate = call.json().await?;
    let created = call.state.token_create(&call.scope(), &wanted).await?;
    json_with(StatusCode::CREATED, &created)
}

/// `DELETE /tokens/{token}`
pub(super) async fn token_revoke(call: Call) -> Result<Response> {
    let (id, namespace) = (call.name(0).parse()?, namespace(&call)?);
    call.state
        .token_revoke(&call.scope(), namespace, &id)
        .await?;
    empty(StatusCode::NO_CONTENT)
}

/// `POST /certificates`
pub(super) async fn certificate_create(mut call: Call) -> Result<Response> {
    let wanted: native::CertificateCreate = call.json().await?;
    let made = call
        .state
        .certificate_create(&call.scope(), &wanted)
        .await?;
    json_with(StatusCode::CREATED, &made)
}

/// `GET /authority`
pub(super) async fn authority(call: Call) -> Result<Response> {
    json(&call.state.authority()?)
}

/// `POST /authority/rotate`
pub(super) async fn authority_rotate(mut call: Call) -> Result<Response> {
    let _: native::AuthorityRotate = call.json().await?;
    json(&call.state.authority_rotate().await?)
}

/// `GET /audit`
pub(super) async fn audit(call: Call) -> Result<Response> {
    let text = |name: &str| call.query.nonempty(name).map(str::to_owned);
    let filter = AuditFilter {
        namespace: text("namespace"),
        token: text("token"),
        call: text("call"),
        since: call.query.time("since")?,
        until: call.query.time("until")?,
        failed: call.query.flag("failed"),
        last: call.query.number("last")?,
    };
    let entries = call.state.audit(filter).await?;
    json(&native::AuditList { entries })
}

/// `GET /tenants`
pub(super) async fn tenants(call: Call) -> Result<Response> {
    let tenants = call.state.tenant_list().await?;
    json(&native::TenantList { tenants })
}

/// `POST /tenants`
pub(super) async fn tenant_create(mut call: Call) -> Result<Response> {
    let wanted: native::TenantCreate = call.json().await?;
    let created = call.state.tenant_create(&wanted.name).await?;
    json_with(StatusCode::CREATED, &created)
}

/// `GET /tenants/{tenant}/quota`
pub(super) async fn quota(call: Call) -> Result<Response> {
    json(&call.state.quota(&call.name(0).parse()?)?)
}

/// `PUT /tenants/{tenant}/quota`
pub(super) async fn quota_set(mut call: Call) -> Result<Response> {
    let quota: native::Quota = call.json().await?;
    json(&call.state.quota_set(&call.name(0).parse()?, quota).await?)
}

/// `GET /usage`
pub(super) async fn usage(call: Call) -> Result<Response> {
    json(
        &call
            .state
            .quota_use(&call.scope(), namespace(&call)?)
            .await?,
    )
}

/// `DELETE /tenants/{tenant}`
pub(super) async fn tenant_remove(call: Call) -> Result<Response> {
    let force = call.query.flag("force");
    call.state
        .tenant_remove(&call.name(0).parse()?, force)
        .await?;
    empty(StatusCode::NO_CONTENT)
}
