//! Writes a run's images, texts and files to the blob store, on a separate thread, because training must not wait for a disk (invariant
//! I7). Each one is reported after it is stored.

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};

use lockstep_common::chain;
use lockstep_rpc::{BlobRef, MediaReport, ReportBlock};
use lockstep_store::{BlobError, BlobStore};
use tch::{Kind, TchError, Tensor};
use tracing::warn;

use super::Outbox;

/// Number of media that wait for the disk. Further ones are dropped and counted.
const WAITING: usize = 64;

/// Texts of up to this many bytes are part of the report, not a blob.
const SHORT_TEXT: usize = 4096;

/// A medium to write.
#[derive(Debug)]
pub(crate) struct Media {
    pub(crate) name: String,
    pub(crate) step: u64,
    pub(crate) at_ms: u64,
    pub(crate) process: u32,
    pub(crate) content: Content,
}

#[derive(Debug)]
pub(crate) enum Content {
    /// `[channels, height, width]`.
    Image(Tensor),
    Text(String),
    File(PathBuf),
}

/// The handle to the thread. Dropping it waits until everything is stored.
#[derive(Debug)]
pub(crate) struct MediaWriter {
    queue: Option<SyncSender<Media>>,
    outbox: Outbox,
    thread: Option<JoinHandle<()>>,
}

/// Why a medium cannot be stored.
#[derive(Debug, thiserror::Error)]
enum MediaError {
    #[error(transparent)]
    Blob(#[from] BlobError),
    #[error("cannot read `{}`", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot store an image of shape {0:?}: expected [channels, height, width] with 1, 3 or 4 channels")]
    Shape(Vec<i64>),
    #[error("libtorch failed")]
    Torch(#[from] TchError),
    #[error("cannot encode an image")]
    Png(#[from] png::EncodingError),
}

impl MediaWriter {
    /// Writes to `store`, and reports to `outbox`. If the thread cannot be started, logs a warning, and training continues without media.
    pub(crate) fn start(store: BlobStore, outbox: &Outbox) -> Option<Self> {
        let started = Self::try_start(store, outbox.clone());
        started.inspect_err(|error| warn!(error = chain(error), "images, texts and files are not stored")).ok()
    }

    fn try_start(store: BlobStore, outbox: Outbox) -> io::Result<Self> {
        let (queue, waiting) = sync_channel::<Media>(WAITING);
        let told = outbox.clone();
        let work = move || {
            for media in waiting {
                let (name, process) = (media.name.clone(), media.process);
                match report(&store, media) {
                    Ok(media) => {
                        told.push(ReportBlock { process, media: vec![media], ..ReportBlock::default() });
                    }
                    Err(error) => {
                        warn!(
                            name,
                            error = chain(&error),
                            "cannot store an image, text or file that the model's code logged"
                        );
                        told.push(dropped(process));
                    }
                }
            }
        };
        let thread = thread::Builder::new().name("media".to_owned()).spawn(work)?;
        Ok(Self { queue: Some(queue), outbox, thread: Some(thread) })
    }

    /// Queues `media` for the thread. If the queue is full, drops it with a warning.
    pub(crate) fn write(&self, media: Media) {
        let Some(queue) = &self.queue else { return };
        if let Err(TrySendError::Full(media) | TrySendError::Disconnected(media)) = queue.try_send(media) {
            warn!(
                name = media.name,
                step = media.step,
                "the store is too slow: dropping an image, text or file that the model's code logged"
            );
            self.outbox.push(dropped(media.process));
        }
    }
}

impl Drop for MediaWriter {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // If the thread panicked, it has printed the panic.
            let _ = thread.join();
        }
    }
}

fn dropped(process: u32) -> ReportBlock {
    ReportBlock { process, dropped: 1, ..ReportBlock::default() }
}

fn report(store: &BlobStore, media: Media) -> Result<MediaReport, MediaError> {
    let Media { name, step, at_ms, content, .. } = media;
    let mut report = MediaReport { name, step, at_ms, ..MediaReport::default() };
    let (kind, bytes) = match content {
        Content::Text(text) if text.len() <= SHORT_TEXT => {
            return Ok(MediaReport { kind: "text".to_owned(), text, ..report });
        }
        Content::Text(text) => ("text", text.into_bytes()),
        Content::Image(image) => ("image", png_of(&image)?),
        Content::File(path) => {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
            report.file_name = name.unwrap_or_default();
            ("artifact", std::fs::read(&path).map_err(|source| MediaError::Read { path, source })?)
        }
    };
    let piece = store.put(&bytes)?;
    store.sync()?;
    Ok(MediaReport { kind: kind.to_owned(), blob: Some(BlobRef::from(&piece)), ..report })
}

/// Encodes `image` as a PNG with eight bits per channel.
fn png_of(image: &Tensor) -> Result<Vec<u8>, MediaError> {
    let size = image.size();
    let [channels @ (1 | 3 | 4), height, width] = size[..] else { return Err(MediaError::Shape(size)) };
    let bytes = match image.kind() {
        Kind::Uint8 => image.shallow_clone(),
        _ => image.f_mul_scalar(255.0)?.f_round()?.f_clamp(0.0, 255.0)?.f_to_kind(Kind::Uint8)?,
    };
    let pixels = bytes.f_to(tch::Device::Cpu)?.f_permute([1, 2, 0])?.f_contiguous()?.f_reshape([-1])?;
    let pixels = Vec::<u8>::try_from(pixels)?;
    let mut encoded = Vec::new();
    let mut encoder = png::Encoder::new(&mut encoded, width as u32, height as u32);
    encoder.set_color(match channels {
        1 => png::ColorType::Grayscale,
        3 => png::ColorType::Rgb,
        _ => png::ColorType::Rgba,
    });
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&pixels)?;
    writer.finish()?;
    Ok(encoded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::Message;

    #[test]
    fn what_is_kept_is_stored_and_told_and_what_cannot_be_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let outbox = Outbox::default();
        let store = BlobStore::open(&dir.path().join("store")).unwrap();
        let writer = MediaWriter::start(store.another(), &outbox).unwrap();
        let file = dir.path().join("notes.txt");
        std::fs::write(&file, "kept").unwrap();
        let image = Tensor::from_slice(&[0.0_f32, 1.0, 2.0, -1.0]).view([1, 2, 2]);
        let contents = [
            Content::Image(image),
            Content::Image(Tensor::zeros([2, 2], (Kind::Float, tch::Device::Cpu))),
            Content::Text("short".to_owned()),
            Content::Text("long ".repeat(1000)),
            Content::File(file),
        ];
        for content in contents {
            writer.write(Media { name: "x".to_owned(), step: 7, at_ms: 1, process: 2, content });
        }
        drop(writer);
        outbox.close();
        let mut blocks = Vec::new();
        while let Some(Message::Block(block)) = outbox.pop() {
            blocks.push(block);
        }
        assert_eq!(blocks.iter().map(|block| block.dropped).sum::<u64>(), 1);
        let media: Vec<_> = blocks.iter().flat_map(|block| &block.media).collect();
        let kinds: Vec<_> = media.iter().map(|media| (media.kind.as_str(), media.blob.is_some())).collect();
        assert_eq!(kinds, [("image", true), ("text", false), ("text", true), ("artifact", true)]);
        let read = |report: &MediaReport| store.get(&report.blob.clone().unwrap().try_into().unwrap()).unwrap();
        assert_eq!((read(media[3]).as_slice(), media[3].file_name.as_str()), (b"kept".as_slice(), "notes.txt"));
        let png = read(media[0]);
        let mut reader = png::Decoder::new(std::io::Cursor::new(png)).read_info().unwrap();
        let mut pixels = vec![0; 4];
        reader.next_frame(&mut pixels).unwrap();
        assert_eq!(pixels, [0, 255, 255, 0]);
    }
}
