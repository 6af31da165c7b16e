//! The answers of one stream, taken apart into whole batches.

use std::collections::VecDeque;

use fluvio::dataplane::link::ErrorCode;
use fluvio::dataplane::record::{BATCH_HEADER_SIZE, Batch, RawRecords, RecordSet};
use fluvio_socket::AsyncResponse;
use fluvio_spu_schema::fetch::FetchablePartitionResponse;
use fluvio_spu_schema::server::stream_fetch::DefaultStreamFetchRequest;
use fluvio_spu_schema::server::update_offset::{OffsetUpdate, UpdateOffsetsRequest};
use futures_util::StreamExt;

use super::{ANSWER, Consumer, Fault, Line, Session};

/// The answers to one streaming request, taken apart into batches.
pub(super) struct Answers {
    line: Line,
    answers: AsyncResponse<DefaultStreamFetchRequest>,
    batches: VecDeque<Batch<RawRecords>>,
    /// The session under which the first answer came.
    id: Option<u32>,
    /// An error that comes after the batches.
    failed: Option<ErrorCode>,
}

impl Answers {
    pub(super) async fn open(line: Line, request: DefaultStreamFetchRequest) -> Result<Self, Fault> {
        let version = line.versions.lookup_version::<DefaultStreamFetchRequest>();
        let request = line.serial().new_request(request, version);
        // The cluster sends one answer ahead of what was acknowledged.
        let answers = line.socket.create_stream(request, 4).await.map_err(Fault::passing)?;
        Ok(Self { line, answers, batches: VecDeque::new(), id: None, failed: None })
    }

    /// The next batch, or why there is none; `None` when the stream has ended.
    pub(super) async fn next(
        &mut self,
        consumer: &Consumer,
        partition: u32,
    ) -> Option<Result<Batch, ErrorCode>> {
        loop {
            if let Some(batch) = self.batches.pop_front() {
                // The client's own error text names the codec only.
                return Some(Batch::try_from(batch).map_err(|_| ErrorCode::CompressionError));
            }
            if let Some(code) = self.failed.take() {
                return Some(Err(code));
            }
            let answer = match self.answers.next().await? {
                Ok(answer) => answer,
                Err(error) => return Some(Err(ErrorCode::Other(error.to_string()))),
            };
            let is_open = answer.partition.error_code == ErrorCode::None;
            if is_open && self.id.replace(answer.stream_id).is_none() {
                let session = Session { line: self.line.clone(), id: answer.stream_id };
                consumer.sessions().insert(partition, session);
            }
            if let Err(code) = self.take(answer.partition).await {
                return Some(Err(code));
            }
        }
    }

    /// Takes the batches of an answer, and asks for what follows them.
    ///
    /// An answer is cut off where its bytes are used up, often in the middle of a batch. The client's own
    /// stream takes such a batch for a shorter one and goes on behind it, which loses its last records.
    async fn take(
        &mut self,
        answer: FetchablePartitionResponse<RecordSet<RawRecords>>,
    ) -> Result<(), ErrorCode> {
        let FetchablePartitionResponse { error_code, next_filter_offset, records, .. } = answer;
        let came = !records.batches.is_empty();
        self.batches.extend(records.batches.into_iter().take_while(is_whole));
        let next = match self.batches.back() {
            _ if error_code != ErrorCode::None => None,
            Some(last) => Some(last.get_last_offset() + 1),
            None if came => return Err(ErrorCode::MessageTooLarge),
            None => (next_filter_offset > 0).then_some(next_filter_offset),
        };
        if let (Some(offset), Some(session_id)) = (next, self.id) {
            let request = UpdateOffsetsRequest::new(vec![OffsetUpdate { offset, session_id }]);
            let told = tokio::time::timeout(ANSWER, self.line.serial().send_receive(request)).await;
            told.map_err(|_| ErrorCode::Other("the SPU does not answer".to_owned()))?
                .map_err(|error| ErrorCode::Other(error.to_string()))?;
        }
        self.failed = error_code.is_error().then_some(error_code);
        Ok(())
    }
}

/// Whether all bytes of the batch came.
fn is_whole(batch: &Batch<RawRecords>) -> bool {
    let schema = if batch.header.has_schema() { size_of::<u32>() } else { 0 };
    usize::try_from(batch.batch_len())
        .is_ok_and(|size| size == BATCH_HEADER_SIZE + schema + batch.records().0.len())
}
