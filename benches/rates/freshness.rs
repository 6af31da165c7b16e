//! From produced to visible: records at a fixed rate, and a second session that asks for the rows it has not seen.
//!
//! The clock of a record starts right before it is given to the producer, and ends when a query has returned its
//! row. The query looks for the ids that are on their way, by the primary key, about 400 times a second; so a
//! row is found visible a little late, never early. How late at most is measured too, and reported beside. So is how
//! long the broker took to acknowledge a record: no connector can have it sooner.

use std::collections::VecDeque;
use std::process::Command;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use rdkafka::ClientContext;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use tokio::time::MissedTickBehavior;
use tokio_postgres::Client;

use crate::backlog::target;
use crate::report::Report;
use crate::sample::{Rows, Version, id};
use crate::scale::Scale;
use crate::stand::{PARTITIONS, Stand, settle};
use crate::support::connector::Connector;
use crate::support::kafka::Topic;
use crate::support::wait::PATIENCE;

/// Records a second.
const RATE: usize = 500;
/// Seconds that are produced before anything counts: connections are made, statements prepared, and a broker that has
/// just started compiles what it runs.
const WARM_UP: usize = 10;
/// From one look to the next. More often, looking took a third of a core away from what is looked at.
const LOOK: Duration = Duration::from_millis(2);
/// The most rows that one look asks for.
const MOST: usize = 200;

/// A record on its way.
#[derive(Clone, Copy)]
struct Sent {
    number: usize,
    at: Instant,
}

/// When records were acknowledged: keeps how long that took.
struct Acknowledged(Mutex<Vec<Duration>>);

impl ClientContext for Acknowledged {}

impl ProducerContext for Acknowledged {
    type DeliveryOpaque = Box<Sent>;

    fn delivery(&self, _result: &DeliveryResult<'_>, sent: Box<Sent>) {
        if counts(sent.number) {
            self.0.lock().unwrap().push(sent.at.elapsed());
        }
    }
}

/// Whether a record counts.
fn counts(number: usize) -> bool {
    number >= WARM_UP * RATE
}

/// Measures it, as often as what takes a minute is.
pub(crate) async fn measure(stand: &Stand, report: &mut Report, scale: &Scale) -> Result<()> {
    for _ in 0..scale.slow_rounds {
        once(stand, report, scale).await?;
    }
    Ok(())
}

async fn once(stand: &Stand, report: &mut Report, scale: &Scale) -> Result<()> {
    let (database, topic) = (stand.database().await, stand.empty_topic().await);
    let connector = Connector::new(&topic, &database, &target(384));
    connector.migrate().await;
    let client = database.connect().await;
    // What was measured before has left pages that the disk would take now, and hold everybody up.
    settle(&client, "").await?;
    ensure!(Command::new("sync").status()?.success(), "the disk does not take what is to be written");
    let mut process = connector.start();
    process.logs(PARTITIONS as usize, "partition begins").await;

    let count = RATE * (WARM_UP + scale.freshness);
    let rows = Rows::new(384);
    let payloads: Vec<Vec<u8>> = (0..count)
        .map(|number| {
            let mut payload = Vec::new();
            rows.row(number, Version::default()).render(&mut payload);
            payload
        })
        .collect();
    println!("  {RATE} records a second for {} s", WARM_UP + scale.freshness);
    let (sender, receiver) = sync_channel(count);
    let producer = producer(&topic)?;
    let name = topic.name().to_owned();
    let thread = std::thread::spawn(move || produce(&producer, &name, &payloads, &sender));
    let seen = watch(&client, receiver, count).await?;
    let (behind, acknowledged) = thread.join().map_err(|_| anyhow::anyhow!("the producer panicked"))??;
    process.stop().await;

    let latencies = sorted_milliseconds(&seen.latencies);
    let acknowledged = sorted_milliseconds(&acknowledged);
    let gaps = sorted_milliseconds(&seen.gaps);
    report.add("p50_visible_ms", quantile(&latencies, 0.5));
    report.add("p99_visible_ms", quantile(&latencies, 0.99));
    report.add("max_visible_ms", quantile(&latencies, 1.0));
    report.add("p50_acknowledged_ms", quantile(&acknowledged, 0.5));
    report.add("p99_acknowledged_ms", quantile(&acknowledged, 0.99));
    report.add("visible_resolution_p50_ms", quantile(&gaps, 0.5));
    report.add("visible_resolution_p99_ms", quantile(&gaps, 0.99));
    report.add("producer_behind_max_ms", behind.as_secs_f64() * 1000.0);
    Ok(())
}

fn sorted_milliseconds(times: &[Duration]) -> Vec<f64> {
    let mut milliseconds: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1000.0).collect();
    milliseconds.sort_by(f64::total_cmp);
    milliseconds
}

/// The value below which this share of the sorted values lies.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let index = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(index.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

/// A producer that waits for nobody: what it adds by itself would be the producer's choice, not the connector's.
fn producer(topic: &Topic) -> Result<ThreadedProducer<Acknowledged>> {
    let acknowledged = Acknowledged(Mutex::default());
    Ok(topic.config().set("linger.ms", "0").set("acks", "all").create_with_context(acknowledged)?)
}

/// Sends each record when it is due. Returns how late the latest was, and how long each took to be acknowledged.
fn produce(
    producer: &ThreadedProducer<Acknowledged>,
    topic: &str,
    payloads: &[Vec<u8>],
    sender: &SyncSender<Sent>,
) -> Result<(Duration, Vec<Duration>)> {
    let (since, mut behind) = (Instant::now(), Duration::ZERO);
    for (number, payload) in payloads.iter().enumerate() {
        let due = since + Duration::from_secs_f64(number as f64 / RATE as f64);
        while let Some(left) = due.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            std::thread::park_timeout(left);
        }
        behind = behind.max(due.elapsed());
        let key = id(number);
        let timestamp = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_millis() as i64;
        let sent = Sent { number, at: Instant::now() };
        let record = BaseRecord::<str, [u8], _>::with_opaque_to(topic, Box::new(sent))
            .partition((number % PARTITIONS as usize) as i32)
            .timestamp(timestamp)
            .key(&key)
            .payload(payload);
        producer.send(record).map_err(|(error, _)| error)?;
        sender.send(sent).context("nobody watches any more")?;
    }
    producer.flush(PATIENCE)?;
    Ok((behind, std::mem::take(&mut *producer.context().0.lock().unwrap())))
}

/// What was seen.
struct Seen {
    latencies: Vec<Duration>,
    /// From the start of one look to the end of the next: by so much a row may be found late.
    gaps: Vec<Duration>,
}

/// Asks for the rows that are on their way until all were seen.
async fn watch(client: &Client, sent: Receiver<Sent>, count: usize) -> Result<Seen> {
    // A plan made while the table was empty would read all of it in each look.
    client.batch_execute("set enable_seqscan = off").await?;
    let statement = client.prepare("select id from embeddings where id = any($1)").await?;
    let mut seen = Seen { latencies: Vec::with_capacity(count), gaps: Vec::new() };
    let mut waiting: VecDeque<(String, Sent)> = VecDeque::new();
    let (mut left, mut last, since) = (count, Instant::now(), Instant::now());
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while left > 0 {
        look.tick().await;
        ensure!(since.elapsed() < PATIENCE * 2, "{left} records never became visible");
        loop {
            match sent.try_recv() {
                Ok(sent) => waiting.push_back((id(sent.number), sent)),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) if waiting.len() == left => break,
                Err(TryRecvError::Disconnected) => anyhow::bail!("the producer gave up"),
            }
        }
        if waiting.is_empty() {
            last = Instant::now();
            continue;
        }
        let ids: Vec<&str> = waiting.iter().take(MOST).map(|(id, _)| id.as_str()).collect();
        let start = Instant::now();
        let found = client.query(&statement, &[&ids]).await?;
        let now = Instant::now();
        seen.gaps.push(now - last);
        last = start;
        let found: Vec<&str> = found.iter().map(|row| row.get(0)).collect();
        waiting.retain(|(id, sent)| {
            let is_visible = found.contains(&id.as_str());
            if is_visible {
                left -= 1;
                if counts(sent.number) {
                    seen.latencies.push(now - sent.at);
                }
            }
            !is_visible
        });
    }
    Ok(seen)
}
