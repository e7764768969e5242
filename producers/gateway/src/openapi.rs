//! The description of it all.
use utoipa::OpenApi as _;
#[derive(utoipa::OpenApi)]
#[openapi(info(title = "Millrace gateway"))]
struct Document;
/// `OpenAPI` 3.1 of what the gateway serves.
pub fn openapi() -> utoipa::openapi::OpenApi {
    Document::openapi()
}
