//! The router and the ways through a request: one object, an array, NDJSON.

use std::sync::{Arc, LazyLock};
use std::time::Instant;

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use millrace_http::Problem;
use millrace_schemas::Transaction;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use crate::answer::{self, Answer, Batch};
use crate::collector::{Collector, Results, Ticket};
use crate::gateway::Shared;
use crate::item::{self, Rejection};
use crate::kafka::Link;
use crate::lines::Lines;
use crate::request::Form;
use crate::upload::Upload;
use crate::{Gateway, openapi};

/// `POST /v1/transactions` and `GET /openapi.json`; what serves it answers everything else.
pub fn router(gateway: Gateway) -> Router {
    Router::new()
        .route("/v1/transactions", post(submit))
        .route("/openapi.json", get(document))
        .with_state(gateway)
}

/// Hand in transactions
///
/// One object, an array, or NDJSON that is published line by line as it arrives. 202 comes only after
/// every record was acknowledged by all in-sync replicas. Whatever the answer, the same request may be
/// sent again: a transaction that comes twice is posted once.
#[utoipa::path(
    post,
    path = "/v1/transactions",
    operation_id = "submit_transactions",
    params((
        "Idempotency-Key" = Option<String>, Header, nullable = false,
        min_length = 1, max_length = 255, pattern = "^[!-~]+$", example = "order-4711",
        description = "Only with a single object: gives its id, together with its source, where the \
                       object has none."
    )),
    request_body(
        description = "At most 10,000 items; 1 MiB of JSON or per line, 64 MiB of NDJSON. The schema of NDJSON is \
                       that of its lines as an array.",
        content(
            (openapi::Submission = "application/json", example = json!(openapi::example())),
            (openapi::Items = "application/x-ndjson", example = json!(openapi::example_lines())),
            (openapi::Items = "application/ndjson", example = json!(openapi::example_lines())),
        )
    ),
    responses(
        (status = 202, description = "All of it is in the log.", body = Answer),
        (status = 207, description = "Some items are in the log, some are no transactions.", body = Batch),
        (status = 400, description = "`malformed_json`, `body_incomplete`, `invalid_idempotency_key`, \
            `idempotency_key_not_allowed`. Of NDJSON that breaks off, `accepted` and `results` say what is in the log.",
            body = openapi::SubmissionProblem, content_type = "application/problem+json"),
        (status = 405, description = "`method_not_allowed`.",
            body = Problem, content_type = "application/problem+json",
            headers(("Allow" = String, description = "The methods that there are."))),
        (status = 408, description = "`body_timeout`. Of NDJSON, `accepted` and `results` say what is in the log.",
            body = openapi::SubmissionProblem, content_type = "application/problem+json"),
        (status = 413, description = "`body_too_large`, `too_many_items`. Of NDJSON, `accepted` and `results` \
            say what is in the log.",
            body = openapi::SubmissionProblem, content_type = "application/problem+json"),
        (status = 415, description = "`unsupported_media_type`.",
            body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`empty_batch`, `no_valid_item`, and of a single object the code \
            and the field: `not_an_object`, `unknown_field`, `duplicate_field`, `missing_field`, \
            `invalid_type`, `missing_id`, `invalid_amount` and so on, `same_account`, `record_refused`.",
            body = openapi::SubmissionProblem, content_type = "application/problem+json"),
        (status = 429, description = "`queue_full`, `busy`.",
            body = openapi::SubmissionProblem, content_type = "application/problem+json",
            headers(("Retry-After" = u32, description = "Seconds."))),
        (status = 500, description = "`internal`.",
            body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`kafka_unavailable`.",
            body = openapi::SubmissionProblem, content_type = "application/problem+json",
            headers(("Retry-After" = u32, description = "Seconds."))),
    )
)]
pub(crate) async fn submit(
    State(gateway): State<Gateway>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let meter = gateway.0.meters.begin();
    let answer = take(&gateway.0, &headers, body).await;
    let response = answer.into_response();
    meter.answered(response.status());
    response
}

/// This document
#[utoipa::path(
    get,
    path = "/openapi.json",
    operation_id = "openapi",
    responses((status = 200, description = "OpenAPI 3.1.", body = serde_json::Value))
)]
pub(crate) async fn document() -> Json<&'static utoipa::openapi::OpenApi> {
    static DOCUMENT: LazyLock<utoipa::openapi::OpenApi> = LazyLock::new(openapi::openapi);
    Json(&DOCUMENT)
}

async fn take(gateway: &Shared, headers: &HeaderMap, body: Body) -> Result<Answer, Problem> {
    let form = Form::of(headers)?;
    let link = gateway.kafka.admit().ok_or_else(answer::unavailable)?;
    let submission = Submission {
        gateway,
        link,
        collector: Arc::default(),
    };
    match form {
        Form::Json { key } => submission.json(body, key).await,
        Form::Ndjson => submission.ndjson(body).await,
    }
}

/// One request on its way to Kafka.
struct Submission<'a> {
    gateway: &'a Shared,
    link: Link,
    collector: Arc<Collector>,
}

impl Submission<'_> {
    async fn json(&self, body: Body, key: Option<&str>) -> Result<Answer, Problem> {
        let limits = &self.gateway.limits;
        let memory = &self.gateway.memory;
        let mut upload = Upload::new(body, limits.body_json_bytes, limits, memory)?;
        let bytes = upload.whole().await?;
        let text = item::utf8(&bytes).map_err(answer::refused)?;
        if !text.trim_start().starts_with('[') {
            self.one(text, key).await
        } else if key.is_some() {
            Err(answer::key_not_allowed())
        } else {
            self.array(text).await
        }
    }

    async fn one(&self, text: &str, key: Option<&str>) -> Result<Answer, Problem> {
        let transaction = item::parse(text, key).map_err(|rejection| {
            self.gateway.meters.count_rejected();
            answer::refused(rejection)
        })?;
        let mut permits = self.permits(1)?;
        let index = self.collector.expect(transaction.id);
        self.hand_in_all(&[(index, transaction)], &mut permits)
            .await;
        Answer::one(self.results().await)
    }

    async fn array(&self, text: &str) -> Result<Answer, Problem> {
        let elements = item::elements(text).map_err(answer::refused)?;
        let items_max = self.gateway.limits.items_max;
        if elements.is_empty() {
            return Err(answer::empty_batch());
        }
        if elements.len() > items_max {
            return Err(answer::too_many_items(items_max));
        }
        let mut good = Vec::with_capacity(elements.len());
        for element in elements {
            match item::parse(element.get(), None) {
                Ok(transaction) => good.push((self.collector.expect(transaction.id), transaction)),
                // Its position would be one within the element.
                Err(rejection) => self.collector.reject(Rejection {
                    position: None,
                    ..rejection
                }),
            }
        }
        let mut permits = self.permits(good.len())?;
        self.hand_in_all(&good, &mut permits).await;
        Answer::batch(self.results().await)
    }

    async fn ndjson(&self, body: Body) -> Result<Answer, Problem> {
        let limits = &self.gateway.limits;
        let memory = &self.gateway.memory;
        let mut upload = Upload::new(body, limits.body_ndjson_bytes, limits, memory)?;
        // A stream begins only when there is room; later lines wait for theirs.
        let mut spare = Some(self.permits(1)?);
        let end = self.stream(&mut upload, &mut spare).await;
        drop((upload, spare));
        let results = self.results().await;
        match end {
            Ok(()) => Answer::batch(results),
            Err(problem) => Err(answer::with_results(problem, &results)),
        }
    }

    async fn stream(
        &self,
        upload: &mut Upload,
        spare: &mut Option<OwnedSemaphorePermit>,
    ) -> Result<(), Problem> {
        let line_bytes_max = self.gateway.limits.body_json_bytes;
        let mut lines = Lines::default();
        let mut number = 0;
        while let Some(chunk) = upload.next().await? {
            lines.push(&chunk);
            while let Some(line) = lines.next() {
                number += 1;
                self.line(number, &line, spare).await?;
            }
            if lines.buffered_bytes() > line_bytes_max {
                return Err(answer::line_too_large(number + 1, line_bytes_max));
            }
            upload.keep(lines.buffered_bytes());
        }
        match lines.rest() {
            Some(line) => self.line(number + 1, &line, spare).await,
            None => Ok(()),
        }
    }

    /// Publishes one line. An error ends the request.
    async fn line(
        &self,
        number: usize,
        line: &[u8],
        spare: &mut Option<OwnedSemaphorePermit>,
    ) -> Result<(), Problem> {
        let limits = &self.gateway.limits;
        if line.trim_ascii().is_empty() {
            return Ok(());
        }
        if line.len() > limits.body_json_bytes {
            return Err(answer::line_too_large(number, limits.body_json_bytes));
        }
        if self.collector.len() >= limits.items_max {
            return Err(answer::too_many_items(limits.items_max));
        }
        match item::utf8(line).and_then(|text| item::parse(text, None)) {
            Err(mut rejection) => {
                if let Some(position) = &mut rejection.position {
                    position.line = number;
                }
                self.collector.reject(rejection);
            }
            Ok(transaction) => {
                let since = Instant::now();
                let handed_in = timeout(limits.accept_timeout, async {
                    let permit = match spare.take() {
                        Some(permit) => permit,
                        None => self.permit().await,
                    };
                    let index = self.collector.expect(transaction.id);
                    self.hand_in(index, &transaction, permit).await;
                });
                self.note_missing(since, handed_in.await.is_ok());
            }
        }
        if self.collector.has_failed() {
            return Err(answer::unavailable());
        }
        Ok(())
    }

    /// All permits at once, or none.
    fn permits(&self, count: usize) -> Result<OwnedSemaphorePermit, Problem> {
        let count = u32::try_from(count).map_err(|_| answer::queue_full())?;
        Arc::clone(&self.gateway.pending)
            .try_acquire_many_owned(count)
            .map_err(|_| answer::queue_full())
    }

    async fn permit(&self) -> OwnedSemaphorePermit {
        let permit = Arc::clone(&self.gateway.pending).acquire_owned().await;
        permit.expect("the permits are never closed")
    }

    /// Hands them in, in order, until one fails.
    async fn hand_in_all(
        &self,
        items: &[(usize, Transaction<'_>)],
        permits: &mut OwnedSemaphorePermit,
    ) {
        let since = Instant::now();
        let handed_in = timeout(self.gateway.limits.accept_timeout, async {
            for (index, transaction) in items {
                let permit = permits.split(1).expect("there is a permit for each item");
                self.hand_in(*index, transaction, permit).await;
                if self.collector.has_failed() {
                    return;
                }
            }
        });
        self.note_missing(since, handed_in.await.is_ok());
    }

    async fn hand_in(
        &self,
        index: usize,
        transaction: &Transaction<'_>,
        permit: OwnedSemaphorePermit,
    ) {
        let (kafka, generation) = (&self.gateway.kafka, self.link.generation);
        let item = (index, transaction.id);
        let pending = &self.gateway.meters.pending;
        let ticket = Ticket::new(&self.collector, item, (kafka, generation), pending, permit);
        let since = Instant::now();
        let on_delivery = move |answer| ticket.answer(answer);
        let publisher = &self.link.publisher;
        if let Err(error) = publisher.publish_with(transaction, on_delivery).await {
            let answer = Err(error);
            kafka.note(generation, since, &answer);
            self.collector.answer(index, transaction.id, answer);
        }
    }

    /// Waits for the receipts.
    async fn results(&self) -> Results {
        let since = Instant::now();
        let timeout = self.gateway.limits.accept_timeout;
        self.note_missing(since, self.collector.settle(timeout).await);
        let results = self.collector.results();
        self.gateway.meters.count(&results);
        results
    }

    fn note_missing(&self, since: Instant, in_time: bool) {
        if !in_time {
            self.collector.fail();
            let kafka = &self.gateway.kafka;
            kafka.note_failure(since, "no receipt came in time");
        }
    }
}
