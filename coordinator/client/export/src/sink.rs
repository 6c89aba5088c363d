//! Where a run goes: the tools behind one face.

use std::pin::Pin;

use crate::{ExportError, Item, Mlflow, Run, TableFile, TensorBoard, Wandb};

/// What a sink is doing. Boxed: the body of an `async fn` is compiled once more in each crate that awaits it.
type Written<'a> = Pin<Box<dyn Future<Output = Result<(), ExportError>> + Send + 'a>>;

/// One tool that a run is written to. An item may come again after an interruption: of each name a tool takes each step once.
/// After an error it is not known what the tool took, until [`Sink::begin`] is called again.
///
/// A tool takes what it has a place for, and leaves the rest.
#[derive(Debug)]
pub enum Sink {
    /// Event files; all but artifacts.
    TensorBoard(TensorBoard),
    /// A server; all but histograms.
    Mlflow(Mlflow),
    /// CSV or Parquet; points only. The file is there after [`Sink::finish`].
    Table(TableFile),
    /// An offline run; all. It is there after [`Sink::finish`].
    Wandb(Wandb),
}

impl Sink {
    /// Announces `run`, or finds what an earlier export of it wrote. Call it first.
    pub fn begin<'a>(&'a mut self, run: &'a Run) -> Written<'a> {
        Box::pin(async move {
            match self {
                Self::TensorBoard(sink) => sink.begin(run).await,
                Self::Mlflow(sink) => sink.begin(run).await,
                Self::Table(sink) => sink.begin(),
                Self::Wandb(sink) => sink.begin().await,
            }
        })
    }

    /// Writes `items`; TensorBoard and MLflow show them from now on.
    pub fn write<'a>(&'a mut self, items: &'a [Item<'_>]) -> Written<'a> {
        Box::pin(async move {
            match self {
                Self::TensorBoard(sink) => sink.write(items).await,
                Self::Mlflow(sink) => sink.write(items).await,
                Self::Table(sink) => {
                    sink.write(items);
                    Ok(())
                }
                Self::Wandb(sink) => {
                    sink.write(items);
                    Ok(())
                }
            }
        })
    }

    /// Writes how `run` ended and its tags as of now; call it last.
    pub fn finish<'a>(&'a mut self, run: &'a Run) -> Written<'a> {
        Box::pin(async move {
            match self {
                Self::TensorBoard(sink) => sink.finish(run).await,
                Self::Mlflow(sink) => sink.finish(run).await,
                Self::Table(sink) => sink.finish().await,
                Self::Wandb(sink) => sink.finish(run).await,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_sink_does_can_be_given_to_another_thread() {
        fn sent(_: impl Send) {}
        let _: fn(&mut Sink, &Run, &[Item<'_>]) = |sink, run, items| {
            sent(sink.begin(run));
            sent(sink.write(items));
            sent(sink.finish(run));
        };
    }
}
