//! Templates of prompts, as evaluation tasks write them.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Value, ValueKind};
use minijinja::{Environment, UndefinedBehavior};

use super::format::Python;
use super::{BASE_FUEL, LONGEST, NAME, add, describe, environment, on_large_stack, rewrite};
use crate::Json;

/// What a template gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rendered {
    /// A text.
    Text(String),
    /// The items of a list, of a template that is one expression whose value is a list.
    List(Vec<String>),
}

/// A Jinja2 template of a prompt, with the settings of EleutherAI's lm-evaluation-harness: a
/// variable that is not defined is an error, and a line break at the end stays.
#[derive(Debug)]
pub struct Template {
    environment: Environment<'static>,
    /// The expression, of a template that is nothing else.
    expression: Option<String>,
}

impl Template {
    /// Parses a template.
    ///
    /// # Errors
    /// The problem, with its line in the template.
    pub fn new(source: &str) -> Result<Self, String> {
        if source.len() > LONGEST {
            return Err(format!("it has {} bytes, but the limit is {LONGEST}", source.len()));
        }
        on_large_stack(BASE_FUEL, || Self::parse(source))
    }

    fn parse(source: &str) -> Result<Self, String> {
        let mut environment = environment();
        let syntax = SyntaxConfig::builder().keep_trailing_newline(true).build();
        environment.set_syntax(syntax.map_err(|error| error.to_string())?);
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_fuel(Some(BASE_FUEL));
        let source = rewrite::to_minijinja(source);
        let expression = source.trim().strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}"));
        let expression = expression.filter(|inner| !inner.contains("{{") && !inner.contains("}}"));
        let expression = expression.map(|inner| inner.trim_matches('-').trim().to_owned());
        add(&mut environment, source)?;
        Ok(Self { environment, expression })
    }

    /// Renders the template with the fields of an object as its variables.
    ///
    /// # Errors
    /// The problem, with its line in the template.
    pub fn render(&self, fields: &Json) -> Result<Rendered, String> {
        on_large_stack(BASE_FUEL, || self.render_here(&fields.to_template()))
    }

    fn render_here(&self, fields: &Value) -> Result<Rendered, String> {
        if let Some(expression) = &self.expression {
            let expression = self.environment.compile_expression(expression);
            let value = expression.and_then(|expression| expression.eval(fields));
            let value = value.map_err(|error| describe(&error))?;
            if value.kind() == ValueKind::Seq {
                let items = value.try_iter().map_err(|error| describe(&error))?;
                let items = items.zip(1..).map(|(item, number)| match item.is_undefined() {
                    true => Err(format!("item {number} of the list is undefined")),
                    false => Ok(Python(&item).to_string()),
                });
                return items.collect::<Result<_, _>>().map(Rendered::List);
            }
        }
        let template = self.environment.get_template(NAME);
        let text = template.and_then(|template| template.render(fields));
        text.map(Rendered::Text).map_err(|error| describe(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(template: &str, fields: &str) -> Result<Rendered, String> {
        Template::new(template)?.render(&Json::parse(fields.as_bytes()).unwrap())
    }

    fn text(text: &str) -> Result<Rendered, String> {
        Ok(Rendered::Text(text.to_owned()))
    }

    #[test]
    fn prompts_are_those_of_the_harness() {
        let fields = r#"{"text": "a b  c", "choices": {"text": ["x", "y"], "label": ["A", "B"]},
            "answer": "B", "score": 0.5, "none": null}"#;
        for (template, expected) in [
            ("{{text.split(' ')[:-1]|join(' ')}}", "a b "),
            ("{{' '+text.split(' ')[-1]}}", " c"),
            ("{{choices.label.index(answer)}}", "1"),
            ("Q: {{text}}\nA:\n", "Q: a b  c\nA:\n"),
            ("{{score}} {{none}} {{true}}", "0.5 None True"),
            ("{% if answer == 'B' %}\nyes{% endif %}", "\nyes"),
            ("", ""),
        ] {
            assert_eq!(render(template, fields), text(expected), "{template}");
        }
        let list = |items: &[&str]| {
            Ok(Rendered::List(items.iter().map(|&item| item.to_owned()).collect()))
        };
        assert_eq!(render("{{choices.text}}", fields), list(&["x", "y"]));
        assert_eq!(render(" {{[answer, text + '!']}} ", fields), list(&["B", "a b  c!"]));
        assert_eq!(render("{{[1, 2]}}", fields), list(&["1", "2"]));
    }

    #[test]
    fn faults_are_named() {
        let cause = render("line\n{{missing}}", "{}").unwrap_err();
        assert!(cause.contains("line 2") && cause.contains("undefined"), "{cause}");
        let cause = render("{{missing}}", "{}").unwrap_err();
        assert!(cause.contains("undefined"), "{cause}");
        let cause = render("{{[true, missing]}}", "{}").unwrap_err();
        assert_eq!(cause, "item 2 of the list is undefined");
        let cause = Template::new("{% if %}").unwrap_err();
        assert!(cause.contains("line 1"), "{cause}");
        let cause = render("{% for i in range(100000) %}{{ i }}{% endfor %}", "{}");
        assert!(cause.is_ok(), "{cause:?}");
        let cause = render(
            "{% for i in range(10000) %}{% for j in range(10000) %}x{% endfor %}{% endfor %}",
            "{}",
        );
        assert!(cause.unwrap_err().contains("fuel"));
    }
}
