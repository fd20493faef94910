//! The functions and filters that transformers adds, and those of Jinja2 that differ in minijinja.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use minijinja::value::{Rest, Tuple, Value, ValueKind};
use minijinja::{Environment, Error, State};

use super::failure::invalid;
use super::format::{self, Python};
use super::rewrite::{ITERABLE, PERCENT};
use super::tojson::tojson;

pub(super) fn add_to(environment: &mut Environment<'static>) {
    minijinja_contrib::add_to_environment(environment);
    environment.set_formatter(|out, _, value| {
        out.write_fmt(format_args!("{}", Python(value))).map_err(Error::from)
    });
    environment.add_function("raise_exception", |message: Value| -> Result<Value, Error> {
        Err(invalid(message.to_string()))
    });
    environment.add_function("strftime_now", |format: &str| -> Result<String, Error> {
        let now = Timestamp::now().to_zoned_datetime(TimeZone::UTC).datetime();
        jiff::fmt::strtime::format(format, now).map_err(invalid)
    });
    environment.add_function(PERCENT, percent);
    environment.add_filter(ITERABLE, |value: &Value| match value.kind() {
        ValueKind::None => Err(invalid("none is not iterable")),
        _ => Ok(value.clone()),
    });
    environment.add_test("iterable", |value: &Value| !value.is_none() && value.try_iter().is_ok());
    environment.add_test("sequence", |value: &Value| {
        use ValueKind::{Map, Seq, String, Undefined};
        matches!(value.kind(), Seq | Map | String | Undefined)
    });
    environment.add_test("number", |value: &Value| {
        matches!(value.kind(), ValueKind::Number | ValueKind::Bool)
    });
    environment.add_test("callable", |value: &Value| {
        matches!(value.kind(), ValueKind::Plain | ValueKind::Undefined)
    });
    environment.add_filter("list", |value: &Value| match value.kind() {
        ValueKind::None => Err(invalid("none is not iterable")),
        _ => value.try_iter().map(Value::from_iter),
    });
    environment.add_filter(
        "format",
        |state: &State<'_, '_>, text: &str, arguments: Rest<Value>| {
            format::printf(state, text, &arguments)
        },
    );
    environment.add_filter("tojson", tojson);
    environment.add_filter("string", |value: &Value| match value.as_str() {
        Some(_) => value.clone(),
        None => Value::from(Python(value).to_string()),
    });
}

/// `a % b`: formats a string, or computes the remainder with the sign of `b`.
fn percent(state: &State<'_, '_>, left: &Value, right: &Value) -> Result<Value, Error> {
    if let Some(format) = left.as_str() {
        let arguments: Vec<Value> = match right.downcast_object_ref::<Tuple>() {
            Some(_) => right.try_iter()?.collect(),
            None => vec![right.clone()],
        };
        return format::printf(state, format, &arguments).map(Value::from);
    }
    let whole = |value: &Value| value.is_integer().then(|| i128::try_from(value.clone()).ok());
    if let (Some(Some(left)), Some(Some(right))) = (whole(left), whole(right)) {
        let rest = left.checked_rem(right).ok_or_else(|| invalid("modulo by zero"))?;
        let rest = if rest != 0 && (rest < 0) != (right < 0) { rest + right } else { rest };
        return Ok(i64::try_from(rest).map_or_else(|_| Value::from(rest), Value::from));
    }
    match (f64::try_from(left.clone()), f64::try_from(right.clone())) {
        (Ok(left), Ok(right)) if right != 0.0 => {
            let rest = left % right;
            let rest =
                if rest != 0.0 && (rest < 0.0) != (right < 0.0) { rest + right } else { rest };
            Ok(Value::from(rest))
        }
        _ => Err(invalid(format!("cannot compute {} % {}", left.kind(), right.kind()))),
    }
}
