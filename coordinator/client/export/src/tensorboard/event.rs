//! The messages of event files, as much of them as is written here.
//!
//! Source: `event.proto`, `summary.proto`, `tensor.proto` and `types.proto` of `tensorboard/compat/proto`; a `oneof` is a row of
//! optional fields here, which has the same bytes.

use lockstep_common::series::Histogram;

/// What TensorBoard calls the format. From 2 on, [`SESSION_START`] takes back what came before.
pub(super) const FILE_VERSION: &str = "brain.Event:2";

/// [`SessionLog::status`]: events of this one's step and greater, that came before, do not count.
pub(super) const SESSION_START: i32 = 1;

/// [`Tensor::dtype`]: `f32`.
pub(super) const FLOAT: i32 = 1;
const STRING: i32 = 7;

/// Bars of a histogram: of its bins, which are four to a power of two, all of thirty such powers.
const BARS: usize = 120;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Event {
    /// In seconds of Unix time.
    #[prost(double, tag = "1")]
    pub(super) wall_time: f64,
    #[prost(int64, tag = "2")]
    pub(super) step: i64,
    #[prost(string, optional, tag = "3")]
    pub(super) file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    pub(super) summary: Option<Summary>,
    #[prost(message, optional, tag = "7")]
    pub(super) session_log: Option<SessionLog>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct SessionLog {
    #[prost(int32, tag = "1")]
    pub(super) status: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Summary {
    #[prost(message, repeated, tag = "1")]
    pub(super) value: Vec<Value>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Value {
    #[prost(string, tag = "1")]
    pub(super) tag: String,
    #[prost(float, optional, tag = "2")]
    pub(super) scalar: Option<f32>,
    #[prost(message, optional, tag = "4")]
    pub(super) image: Option<Image>,
    #[prost(message, optional, tag = "5")]
    pub(super) histo: Option<HistogramProto>,
    #[prost(message, optional, tag = "8")]
    pub(super) tensor: Option<Tensor>,
    #[prost(message, optional, tag = "9")]
    pub(super) metadata: Option<Metadata>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Image {
    #[prost(int32, tag = "1")]
    pub(super) height: i32,
    #[prost(int32, tag = "2")]
    pub(super) width: i32,
    #[prost(int32, tag = "3")]
    pub(super) colorspace: i32,
    #[prost(bytes = "vec", tag = "4")]
    pub(super) encoded_image_string: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct HistogramProto {
    #[prost(double, tag = "1")]
    pub(super) min: f64,
    #[prost(double, tag = "2")]
    pub(super) max: f64,
    #[prost(double, tag = "3")]
    pub(super) num: f64,
    #[prost(double, tag = "4")]
    pub(super) sum: f64,
    #[prost(double, tag = "5")]
    pub(super) sum_squares: f64,
    /// Upper edges; the lower one of the first is `min`.
    #[prost(double, repeated, tag = "6")]
    pub(super) bucket_limit: Vec<f64>,
    #[prost(double, repeated, tag = "7")]
    pub(super) bucket: Vec<f64>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Tensor {
    #[prost(int32, tag = "1")]
    pub(super) dtype: i32,
    #[prost(message, optional, tag = "2")]
    pub(super) shape: Option<Shape>,
    #[prost(bytes = "vec", repeated, tag = "8")]
    pub(super) string_val: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Shape {
    #[prost(message, repeated, tag = "2")]
    pub(super) dim: Vec<Dim>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Dim {
    #[prost(int64, tag = "1")]
    pub(super) size: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Metadata {
    #[prost(message, optional, tag = "1")]
    pub(super) plugin_data: Option<PluginData>,
    #[prost(int32, tag = "4")]
    pub(super) data_class: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PluginData {
    #[prost(string, tag = "1")]
    pub(super) plugin_name: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) content: Vec<u8>,
}

impl Event {
    /// One with `value`.
    pub(super) fn of(step: u64, at_ms: u64, value: Value) -> Self {
        Self { summary: Some(Summary { value: vec![value] }), ..Self::at(step, at_ms) }
    }

    /// One without anything.
    pub(super) fn at(step: u64, at_ms: u64) -> Self {
        Self { wall_time: at_ms as f64 / 1e3, step: step as i64, ..Self::default() }
    }
}

impl Metadata {
    /// Gives a value to a plugin.
    pub(super) fn of(plugin: &str, content: Vec<u8>) -> Self {
        /// `DATA_CLASS_TENSOR`.
        const TENSOR: i32 = 2;
        let plugin_data = Some(PluginData { plugin_name: plugin.to_owned(), content });
        Self { plugin_data, data_class: TENSOR }
    }
}

impl Value {
    /// A text, in Markdown.
    pub(super) fn text(tag: &str, text: &str) -> Self {
        // Of no dimension: one with dimensions would be shown as a table.
        let shape = Some(Shape::default());
        let tensor = Tensor { dtype: STRING, shape, string_val: vec![text.as_bytes().to_vec()] };
        let metadata = Some(Metadata::of("text", Vec::new()));
        Self { tag: tag.to_owned(), tensor: Some(tensor), metadata, ..Self::default() }
    }

    /// An image.
    pub(super) fn image(tag: &str, png: &[u8], width: u32, height: u32) -> Self {
        /// What the pixels are is told by the file itself; readers take any number but 0 for that.
        const RGBA: i32 = 4;
        let encoded_image_string = png.to_vec();
        let image = Image { height: height as i32, width: width as i32, colorspace: RGBA, encoded_image_string };
        Self { tag: tag.to_owned(), image: Some(image), ..Self::default() }
    }

    /// A distribution.
    pub(super) fn histogram(tag: &str, histogram: &Histogram) -> Self {
        let (edges, counts) = histogram.bars(BARS);
        let num = (histogram.count - histogram.nans - histogram.infs) as f64;
        let histo = HistogramProto {
            min: histogram.min,
            max: histogram.max,
            num,
            sum: histogram.mean * num,
            sum_squares: histogram.mean.mul_add(histogram.mean, histogram.std * histogram.std) * num,
            bucket_limit: edges.into_iter().skip(1).collect(),
            bucket: counts.into_iter().map(|count| count as f64).collect(),
        };
        Self { tag: tag.to_owned(), histo: Some(histo), ..Self::default() }
    }
}
