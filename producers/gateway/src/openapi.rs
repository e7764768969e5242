//! The description of it all.

use std::collections::BTreeMap;

use millrace_http::Problem;
use millrace_rules::Currency;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{
    AllOfBuilder, ArrayBuilder, Object, ObjectBuilder, Ref, Schema, Type,
};
use utoipa::{OpenApi as _, PartialSchema, ToSchema};
use uuid::Uuid;

use crate::collector::ItemResult;
use crate::routes;

/// `OpenAPI` 3.1 of what the gateway serves.
pub fn openapi() -> utoipa::openapi::OpenApi {
    Document::openapi()
}

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Millrace gateway",
        description = "Transactions in, receipts out. Errors are RFC 9457 problem documents with a \
                       stable `code`."
    ),
    paths(routes::submit, routes::document)
)]
struct Document;

/// One transaction or many.
#[expect(dead_code, reason = "it only describes the body")]
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Submission {
    Many(Items),
    One(Box<Transaction>),
}

/// Transactions with ids. NDJSON is described by the same schema: one element per line.
#[derive(Serialize)]
pub(crate) struct Items;

impl PartialSchema for Items {
    fn schema() -> RefOr<Schema> {
        let with_id = ObjectBuilder::new().required("id");
        let item = AllOfBuilder::new()
            .item(Ref::from_schema_name(Transaction::name()))
            .item(with_id);
        let items = ArrayBuilder::new()
            .items(item)
            .min_items(Some(1))
            .description(Some("Each is judged by itself."));
        items.build().into()
    }
}

impl ToSchema for Items {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((Transaction::name().into(), Transaction::schema()));
        Transaction::schemas(schemas);
    }
}

/// Move `amount` from `debit_account` to `credit_account`.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = example)]
pub(crate) struct Transaction {
    /// Unique across the system; not nil. A retry has the same id. Only a single object with the header
    /// `Idempotency-Key` may go without.
    #[schema(nullable = false)]
    id: Option<Uuid>,
    /// What sort of transaction, in the sender's words; no control characters.
    #[schema(
        min_length = 1,
        max_length = 64,
        pattern = "^[^\\u0000-\\u001F\\u007F-\\u009F]*$"
    )]
    kind: String,
    /// Where the money comes from. Ids that begin with `external:` are the outside world.
    #[schema(pattern = "^[a-z0-9][A-Za-z0-9._:-]{0,63}$", max_length = 64)]
    debit_account: String,
    /// Where the money goes to; another account.
    #[schema(pattern = "^[a-z0-9][A-Za-z0-9._:-]{0,63}$", max_length = 64)]
    credit_account: String,
    /// Minor units of the currency (cents): an integer without fraction or exponent.
    #[schema(minimum = 1, maximum = 1_000_000_000_000_000_i64)]
    amount: i64,
    #[schema(schema_with = currency)]
    currency: String,
    /// When it happened, RFC 3339 with an offset, within the years 1900 to 9998; microseconds count.
    #[schema(
        format = DateTime,
        pattern = "^((19|[2-8][0-9]|9[0-8])[0-9]{2}|99[0-8][0-9]|999[0-8])-"
    )]
    occurred_at: String,
    /// Free text without control characters.
    #[schema(
        nullable = false,
        max_length = 140,
        pattern = "^[^\\u0000-\\u001F\\u007F-\\u009F]*$"
    )]
    reference: Option<String>,
    /// The upstream system; no control characters.
    #[schema(
        min_length = 1,
        max_length = 64,
        pattern = "^[^\\u0000-\\u001F\\u007F-\\u009F]*$"
    )]
    source: String,
    #[schema(schema_with = metadata)]
    metadata: Option<BTreeMap<String, String>>,
}

/// What went wrong, with what became of the items so far.
#[derive(Serialize, ToSchema)]
pub(crate) struct SubmissionProblem {
    #[serde(flatten)]
    problem: Problem,
    /// The id of a single object, where it could be read.
    #[schema(nullable = false)]
    id: Option<Uuid>,
    /// The line where the JSON is broken, from 1.
    #[schema(nullable = false)]
    line: Option<usize>,
    /// The byte of that line, from 1.
    #[schema(nullable = false)]
    column: Option<usize>,
    /// How many items are in the log.
    #[schema(nullable = false)]
    accepted: Option<usize>,
    /// How many items are no transactions.
    #[schema(nullable = false)]
    rejected: Option<usize>,
    /// One for each item that was read, in the order of the request.
    #[schema(nullable = false)]
    results: Option<Vec<ItemResult>>,
}

fn metadata() -> Object {
    let text = || {
        let text = ObjectBuilder::new().schema_type(Type::String);
        text.pattern(Some("^[^\\u0000-\\u001F\\u007F-\\u009F]*$"))
    };
    ObjectBuilder::new()
        .description(Some(
            "Free pairs without control characters, at most 4096 bytes in all.",
        ))
        .property_names(Some(text()))
        .additional_properties(Some(Schema::from(text().build())))
        .build()
}

fn currency() -> Object {
    let mut codes: Vec<_> = Currency::all().map(Currency::code).collect();
    codes.sort_unstable();
    ObjectBuilder::new()
        .schema_type(Type::String)
        .description(Some("ISO 4217, with minor units."))
        .enum_values(Some(codes))
        .build()
}

pub(crate) fn example() -> Value {
    json!({
        "id": "0190d5b0-7c1e-7a34-9f0e-5d3c2b1a0f9e",
        "kind": "payment",
        "debit_account": "acc-1",
        "credit_account": "acc-2",
        "amount": 1250,
        "currency": "EUR",
        "occurred_at": "2024-07-01T12:00:00Z",
        "reference": "Invoice 17",
        "source": "shop",
        "metadata": {"order": "4711"}
    })
}

pub(crate) fn example_lines() -> Value {
    json!([example()])
}
