//! Straight to Kafka: the generator's transactions, each handed to the publisher when it is due.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use millrace_publisher::{Error, Publisher, Receipt, Settings};
use uuid::Uuid;

use crate::look::{Item, Look, Looks};
use crate::offer::{Answer, Offer};

/// Connects a publisher.
pub async fn connect(settings: &Settings) -> anyhow::Result<Publisher> {
    Publisher::connect(settings)
        .await
        .context("connecting to Kafka")
}

/// Publishes everything and waits for all receipts.
pub async fn publish_all(
    offer: &Arc<Offer>,
    publisher: &Publisher,
    looks: &Looks,
) -> anyhow::Result<()> {
    let transactions = offer.load.workload().transactions()?;
    for (request, transaction) in (0..).zip(transactions) {
        if !offer.wait(request).await {
            continue;
        }
        let (shared, id) = (Arc::clone(offer), transaction.id);
        let looks = offer.load.is_looked_for(request).then(|| looks.clone());
        let on_delivery = move |delivery| delivered(&shared, request, id, delivery, looks);
        publisher.publish_with(&transaction, on_delivery).await?;
    }
    publisher.drain().await;
    Ok(())
}

/// On the publisher's own thread: quick, and never waiting.
fn delivered(
    offer: &Offer,
    request: u64,
    id: Uuid,
    delivery: Result<Receipt, Error>,
    looks: Option<Looks>,
) {
    let receipt = match delivery {
        Ok(receipt) => receipt,
        Err(error) => return offer.answered(request, Answer::Failed(error.into())),
    };
    offer.answered(request, Answer::Accepted(1));
    if let Some(looks) = looks {
        let item = Item {
            id: id.to_string(),
            partition: receipt.partition,
            offset: receipt.offset,
        };
        let look = Look {
            request,
            answered: Instant::now(),
            item,
        };
        offer.look_for(&looks, look);
    }
}
