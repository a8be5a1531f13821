//! Errors as `application/problem+json` (RFC 9457), never cached.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::json;

pub const CONTENT_TYPE: &str = "application/problem+json";

/// `detail` is a sentence for a person, without anything that the request brought.
pub fn response(status: StatusCode, detail: &str) -> Response {
    let title = status.canonical_reason().unwrap_or("Error");
    let body = json!({ "type": "about:blank", "title": title, "status": status.as_u16(), "detail": detail });
    let mut response = (status, Json(body)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // A player on another site must see the status rather than a CORS failure.
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response
}

pub async fn not_found() -> Response {
    response(StatusCode::NOT_FOUND, "there is nothing at this address")
}

pub async fn method_not_allowed() -> Response {
    response(StatusCode::METHOD_NOT_ALLOWED, "this address answers GET and HEAD")
}
