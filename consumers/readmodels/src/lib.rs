//! Read models: one SQL file each, the fold runner. (placeholder until the crate's author overwrites this file)
#![allow(missing_docs, clippy::all, clippy::pedantic)]
#[derive(PartialEq)]
pub enum Mode {
    Inline,
    Background,
}
pub struct Model {
    pub name: &'static str,
    pub mode: Mode,
}
pub fn all() -> &'static [Model] {
    &[]
}
pub async fn install(_: &mut sqlx::PgConnection) -> Result<(), sqlx::Error> {
    Ok(())
}
pub async fn fold_inline(
    _: &mut sqlx::PgConnection,
    _: &Model,
    _: &[(i32, i64)],
    _: i64,
) -> Result<(), sqlx::Error> {
    Ok(())
}
pub async fn record_failure(
    _: &mut sqlx::PgConnection,
    _: &Model,
    _: i32,
    _: &str,
) -> Result<(), sqlx::Error> {
    Ok(())
}
pub struct Difference;
impl Difference {
    pub fn place(&self) -> String {
        String::new()
    }
}
impl std::fmt::Display for Difference {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        Ok(())
    }
}
pub async fn verify(_: &mut sqlx::PgConnection) -> Result<Vec<Difference>, sqlx::Error> {
    Ok(vec![])
}
