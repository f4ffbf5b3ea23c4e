//! `${{ task.name }}` in the keyword arguments of an environment.

use serde_json::Value;

/// The value with every `${{ task.name }}` replaced, or the first `${{ ... }}` that is something else.
pub(super) fn fill(value: &Value, task: &str) -> Result<Value, String> {
    match value {
        Value::String(text) => fill_text(text, task).map(Value::String),
        Value::Array(items) => items.iter().map(|item| fill(item, task)).collect(),
        Value::Object(fields) => {
            let fields = fields.iter().map(|(key, field)| Ok((key.clone(), fill(field, task)?)));
            fields.collect::<Result<_, String>>().map(Value::Object)
        }
        other => Ok(other.clone()),
    }
}

fn fill_text(text: &str, task: &str) -> Result<String, String> {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${{") {
        let (inner, after) = after.split_once("}}").ok_or_else(|| "${{".to_owned())?;
        if inner.trim() != "task.name" {
            return Err(format!("${{{{{inner}}}}}"));
        }
        filled.push_str(before);
        filled.push_str(task);
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_the_task_name_is_known() {
        let value = json!({"env_name": "x-${{ task.name }}-${{task.name}}", "n": [1, "${{ task.name }}"]});
        assert_eq!(fill(&value, "push").unwrap(), json!({"env_name": "x-push-push", "n": [1, "push"]}));
        assert_eq!(fill(&json!("a ${{ seed }}"), "push").unwrap_err(), "${{ seed }}");
        assert_eq!(fill(&json!("a ${{ task.name"), "push").unwrap_err(), "${{");
    }
}
