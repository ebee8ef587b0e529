//! A Rust source file as tokens, literals and lines, without a parser: enough for house rules.
//! It never judges; the rules are in `tests/tidy.rs`.

/// One word or sign of the code, with its line from 1.
#[derive(Clone, Debug)]
pub struct Token {
    text: String,
    at: usize,
    pub line: usize,
}

impl Token {
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// A string literal's contents.
#[derive(Debug)]
pub struct Literal {
    pub text: String,
    pub line: usize,
    at: usize,
}

/// A function that has a body.
#[derive(Debug)]
pub struct Function {
    pub name: String,
    pub line: usize,
    pub lines: usize,
}

/// One file; `tokens` and `literals` leave tests out.
#[derive(Debug)]
pub struct Source {
    pub path: String,
    pub text: String,
    pub tokens: Vec<Token>,
    pub literals: Vec<Literal>,
    all_tokens: Vec<Token>,
    test_lines: usize,
    test_modules: Vec<String>,
}

impl Source {
    pub fn new(path: &str, text: &str) -> Source {
        let (code, mut literals) = blank(text);
        let all_tokens = tokenize(&code);
        let tests = test_items(&all_tokens);
        let tested = |at: usize| tests.iter().any(|item| item.from <= at && at <= item.to);
        literals.retain(|literal| !tested(literal.at));
        Source {
            path: path.to_owned(),
            text: text.to_owned(),
            tokens: all_tokens
                .iter()
                .filter(|one| !tested(one.at))
                .cloned()
                .collect(),
            literals,
            test_lines: tests.iter().map(|item| item.lines).sum(),
            test_modules: tests.into_iter().filter_map(|item| item.module).collect(),
            all_tokens,
        }
    }

    /// The first name below `src`.
    pub fn layer(&self) -> &str {
        let path = self.path.strip_prefix("src/").unwrap_or(&self.path);
        path.split(['/', '.']).next().unwrap_or_default()
    }

    /// The files of `#[cfg(test)] mod name;`.
    pub fn test_files(&self) -> Vec<String> {
        let stem = self.path.trim_end_matches(".rs");
        let home = ["/mod", "/lib", "/main"]
            .iter()
            .find_map(|name| stem.strip_suffix(name))
            .unwrap_or(stem);
        let files = |name: &String| [format!("{home}/{name}.rs"), format!("{home}/{name}/mod.rs")];
        self.test_modules.iter().flat_map(files).collect()
    }

    pub fn shipped_lines(&self) -> usize {
        self.text.lines().count() - self.test_lines
    }

    /// The first segment of every path from the crate's root, with its line.
    pub fn crate_references(&self) -> Vec<(String, usize)> {
        let mut found = Vec::new();
        for (at, token) in self.tokens.iter().enumerate() {
            let after = match token.text() {
                "crate" => at + 1,
                "weir" if self.layer() == "main" => at + 1,
                "super" if at == 0 || self.tokens[at - 1].text() != "::" => {
                    match self.past_supers(at) {
                        Some(after) => after,
                        None => continue,
                    }
                }
                _ => continue,
            };
            if self.word(after) == "::" {
                self.first_segments(after + 1, &mut found);
            }
        }
        found
    }

    /// Where a chain of `super` ends, if it ends at the crate's root.
    fn past_supers(&self, mut at: usize) -> Option<usize> {
        let path = self.path.strip_prefix("src/").unwrap_or(&self.path);
        let depth = path.trim_end_matches("/mod.rs").split('/').count();
        let mut supers = 1;
        while self.word(at + 1) == "::" && self.word(at + 2) == "super" {
            supers += 1;
            at += 2;
        }
        (supers >= depth).then_some(at + 1)
    }

    fn first_segments(&self, at: usize, found: &mut Vec<(String, usize)>) {
        if self.word(at) != "{" {
            found.push((self.word(at).to_owned(), self.tokens[at].line));
            return;
        }
        let mut depth = 0;
        let mut first = true;
        for token in &self.tokens[at..] {
            match token.text() {
                "{" => depth += 1,
                "}" if depth == 1 => return,
                "}" => depth -= 1,
                "," if depth == 1 => first = true,
                segment if depth == 1 && first => {
                    found.push((segment.to_owned(), token.line));
                    first = false;
                }
                _ => {}
            }
        }
    }

    fn word(&self, at: usize) -> &str {
        self.tokens.get(at).map_or("", Token::text)
    }

    /// A complaint for every place that names one of these sequences of tokens.
    pub fn naming(&self, banned: &[&str]) -> Vec<String> {
        let mut complaints = Vec::new();
        for (at, token) in self.tokens.iter().enumerate() {
            for sequence in banned {
                let mut words = sequence.split(' ').enumerate();
                if words.all(|(by, word)| self.word(at + by) == word) {
                    complaints.push(format!("{}:{}: names `{sequence}`", self.path, token.line));
                }
            }
        }
        complaints
    }

    pub fn functions(&self) -> Vec<Function> {
        let mut found = Vec::new();
        for (at, token) in self.tokens.iter().enumerate() {
            let name = self.word(at + 1);
            let named = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
            if token.text() != "fn" || !named {
                continue;
            }
            if let Some(last) = body_end(&self.tokens[at..]) {
                found.push(Function {
                    name: name.to_owned(),
                    line: token.line,
                    lines: last - token.line + 1,
                });
            }
        }
        found
    }

    /// Lines with `unsafe`, tests too.
    pub fn unsafe_lines(&self) -> Vec<usize> {
        let tokens = self.all_tokens.iter();
        tokens
            .filter(|one| one.text() == "unsafe")
            .map(|one| one.line)
            .collect()
    }

    /// Whether the comment above the statement that `line` belongs to has `SAFETY:` (or `# Safety`, for a declaration).
    pub fn says_why_safe(&self, line: usize) -> bool {
        let lines: Vec<&str> = self.text.lines().map(str::trim).collect();
        lines[..line - 1]
            .iter()
            .rev()
            .take_while(|above| {
                above.starts_with("//")
                    || above.starts_with("#[")
                    || !(above.is_empty() || above.ends_with([';', '{', '}', ',']))
            })
            .any(|above| above.contains("SAFETY:") || above.contains("# Safety"))
    }
}

/// The last line of the body of the function that `tokens` begin with.
fn body_end(tokens: &[Token]) -> Option<usize> {
    let mut depth = 0i32;
    let mut braces = 0i32;
    for token in tokens {
        match token.text() {
            "(" | "[" => depth += 1,
            ")" | "]" => depth -= 1,
            ";" if depth == 0 && braces == 0 => return None,
            "{" => braces += 1,
            "}" if braces == 1 && depth == 0 => return Some(token.line),
            "}" => braces -= 1,
            _ => {}
        }
    }
    None
}

struct TestItem {
    from: usize,
    to: usize,
    lines: usize,
    module: Option<String>,
}

/// Items under `#[cfg(test)]`, as ranges of the text.
fn test_items(tokens: &[Token]) -> Vec<TestItem> {
    const MARK: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut items: Vec<TestItem> = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let marked = tokens.len() >= at + MARK.len()
            && tokens[at..]
                .iter()
                .zip(MARK)
                .all(|(one, mark)| one.text == mark);
        if !marked || items.last().is_some_and(|last| token.at <= last.to) {
            continue;
        }
        let item = past_attributes(tokens, at);
        let Some(end) = item_end(&tokens[item..]) else {
            continue;
        };
        let words = &tokens[item..item + end + 1];
        let module = match words {
            [.., mark, name, semicolon] if mark.text == "mod" && semicolon.text == ";" => {
                Some(name.text.clone())
            }
            _ => None,
        };
        let last = &words[end];
        items.push(TestItem {
            from: token.at,
            to: last.at,
            lines: last.line - token.line + 1,
            module,
        });
    }
    items
}

fn past_attributes(tokens: &[Token], mut at: usize) -> usize {
    while tokens.get(at).is_some_and(|token| token.text == "#") {
        let mut depth = 0;
        for (by, token) in tokens[at..].iter().enumerate() {
            match token.text.as_str() {
                "[" => depth += 1,
                "]" if depth == 1 => {
                    at += by + 1;
                    break;
                }
                "]" => depth -= 1,
                _ => {}
            }
        }
    }
    at
}

/// The ordinal of an item's last token: `;` outside brackets, or the `}` that closes its body.
fn item_end(tokens: &[Token]) -> Option<usize> {
    let statement = matches!(
        tokens.first()?.text(),
        "use" | "const" | "static" | "let" | "type"
    );
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate() {
        match token.text() {
            "(" | "[" | "{" => depth += 1,
            "}" if depth == 1 && !statement => return Some(at),
            ")" | "]" | "}" => depth -= 1,
            ";" if depth == 0 => return Some(at),
            _ => {}
        }
    }
    None
}

fn tokenize(code: &[u8]) -> Vec<Token> {
    let mut tokens = Vec::new();
    let (mut at, mut line) = (0, 1);
    while at < code.len() {
        let word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_' || *byte >= 0x80;
        let length = match code[at] {
            byte if word(&byte) => code[at..].iter().take_while(|byte| word(byte)).count(),
            b':' if code.get(at + 1) == Some(&b':') => 2,
            _ => 1,
        };
        if code[at] == b'\n' {
            line += 1;
        } else if !code[at].is_ascii_whitespace() {
            let text = String::from_utf8_lossy(&code[at..at + length]).into_owned();
            tokens.push(Token { text, at, line });
        }
        at += length;
    }
    tokens
}

/// The code with comments and literals blanked, byte for byte, and the string literals.
fn blank(text: &str) -> (Vec<u8>, Vec<Literal>) {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut literals = Vec::new();
    let (mut at, mut line, mut counted) = (0, 1, 0);
    while at < bytes.len() {
        let rest = &bytes[at..];
        let after_word = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
        let length = if rest.starts_with(b"//") {
            rest.iter().take_while(|&&byte| byte != b'\n').count()
        } else if rest.starts_with(b"/*") {
            block_comment(rest)
        } else if rest[0] == b'"' {
            string(rest)
        } else if let (false, Some(length)) = (after_word, raw_string(rest)) {
            length
        } else if rest[0] == b'\'' {
            character(rest)
        } else {
            at += 1;
            continue;
        };
        let piece = &rest[..length];
        if let (Some(open), Some(close)) = (
            piece.iter().position(|&byte| byte == b'"'),
            piece.iter().rposition(|&byte| byte == b'"'),
        ) && open < close
            && !piece.starts_with(b"/")
            && !piece.starts_with(b"'")
        {
            line += bytes[counted..at]
                .iter()
                .filter(|&&byte| byte == b'\n')
                .count();
            counted = at;
            literals.push(Literal {
                text: String::from_utf8_lossy(&piece[open + 1..close]).into_owned(),
                line,
                at,
            });
        }
        for byte in &mut code[at..at + length] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at += length;
    }
    (code, literals)
}

fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

fn string(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// The length of `r"…"`, `r#"…"#`, `br"…"` and the like.
fn raw_string(rest: &[u8]) -> Option<usize> {
    let prefix = rest
        .iter()
        .take_while(|&&byte| matches!(byte, b'b' | b'c'))
        .count();
    if prefix > 1 || rest.get(prefix) != Some(&b'r') {
        return None;
    }
    let hashes = rest[prefix + 1..]
        .iter()
        .take_while(|&&byte| byte == b'#')
        .count();
    let open = prefix + 1 + hashes;
    if rest.get(open) != Some(&b'"') {
        return None;
    }
    let close = [&b"\""[..], &vec![b'#'; hashes]].concat();
    let body = &rest[open + 1..];
    let end = body.windows(close.len()).position(|window| window == close);
    Some(end.map_or(rest.len(), |end| open + 1 + end + close.len()))
}

/// The length of a character literal, or 1 for the quote of a lifetime.
fn character(rest: &[u8]) -> usize {
    match rest.get(1) {
        Some(b'\\') => {
            let close = rest[3.min(rest.len())..]
                .iter()
                .position(|&byte| byte == b'\'');
            close.map_or(1, |close| close + 4)
        }
        Some(&first) => {
            let width = match first {
                0..0x80 => 1,
                0x80..0xe0 => 2,
                0xe0..0xf0 => 3,
                _ => 4,
            };
            if rest.get(1 + width) == Some(&b'\'') {
                width + 2
            } else {
                1
            }
        }
        None => 1,
    }
}
