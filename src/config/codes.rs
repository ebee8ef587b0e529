//! Every kind of problem that a configuration file can have, each with a code that never changes its meaning.
//! It holds no text of a file and no span; a code that is retired is never given to another problem.
//! The walk goes on in `diagnostic.rs`, which ties a code to a place in a file.

/// How much a problem matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The file is refused.
    Error,
    /// The file is used, and probably does not say what was meant.
    Warning,
}

/// What a judgement takes for granted. While some lines of a file cannot be read, a judgement that needs them is withheld, so
/// that one slip of the pen is reported once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    /// Only the value itself.
    Value,
    /// That every line of the tables it speaks of was read.
    Tables,
    /// That every table header was read.
    Headers,
    /// That every line was read.
    File,
}

macro_rules! codes {
    ($($name:ident $text:literal $needs:ident $explanation:literal)*) => {
        /// A kind of problem. Codes that begin with `E` refuse the file, those with `W` do not.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code { $(#[doc = $explanation] $name,)* }

        impl Code {
            /// All of them, in the order of their texts.
            pub const ALL: &[Code] = &[$(Code::$name,)*];

            /// The code as printed, such as `E0102`.
            pub fn text(self) -> &'static str {
                match self { $(Code::$name => $text,)* }
            }

            /// One sentence: what is wrong with such a file.
            pub fn explanation(self) -> &'static str {
                match self { $(Code::$name => $explanation,)* }
            }

            /// What a judgement of this kind takes for granted.
            pub(super) fn needs(self) -> Needs {
                match self { $(Code::$name => Needs::$needs,)* }
            }
        }
    };
}

codes! {
    Unreadable "E0001" Value "The file could not be opened or read."
    TooLarge "E0002" Value "The file is larger than any configuration is."
    NotText "E0003" Value "The file is not UTF-8 text."
    NoListeners "E0004" File "The file is empty or names no listener, as a file does that is only half written."
    Syntax "E0005" Value "A line is not TOML."
    DuplicateKey "E0006" Value "A key or a table is written twice."

    DuplicateName "E0101" Value "Two things of one kind have the same name."
    UnknownPool "E0102" Headers "A route leads to a pool that the file does not have."
    UnknownListener "E0103" Headers "A route names a listener that the file does not have."
    BadName "E0104" Value "A name has characters that a name may not have."
    ListedTwice "E0105" Value "A list says the same thing twice."

    UnknownKey "E0201" Value "A key that weir does not know."
    MissingKey "E0202" Tables "A key that must be there is not."
    WrongType "E0203" Value "A value of the wrong type, such as a number where text belongs."
    UnknownChoice "E0204" Value "A value that is none of those the key can have."
    NotYet "E0205" Value "A key or value of a later version of weir."
    BadDuration "E0206" Value "A length of time that is not written as one."
    BadSize "E0207" Value "A number of bytes that is not written as one."
    OutOfRange "E0208" Value "A number, time or size beyond what the key allows."
    BadNetwork "E0209" Value "A network that is not in CIDR notation."
    BadAddress "E0210" Value "An address that is not an IP address with a port."
    BadFilePath "E0211" Value "A path in the file system that cannot be one."
    EmptyList "E0212" Value "A list that must have at least one entry has none."
    BadStatusRange "E0213" Value "A set of HTTP status codes that is not written as one."
    BadRate "E0214" Value "A rate that is not written as so many in a unit of time."
    BadBytes "E0215" Value "The content of a datagram that is not written as one."

    AddressTwice "E0301" Value "Two listeners want the same address, so that the kernel would refuse one."
    OtherListener "E0303" Tables "A listener key that its protocol has no use for."
    ProxyNobody "E0304" File "A listener wants PROXY headers, and nobody is trusted to send them."

    IdenticalRoutes "E0401" Tables "Two routes match exactly the same requests."
    UnreachableRoute "E0402" Tables "Every request that a route matches is taken by another one."
    BadHost "E0403" Value "A host pattern that no request can have."
    BadPath "E0404" Value "A path that no request has once it is in normal form."
    BadMethod "E0405" Value "A request method that is none, or that never reaches a route."
    BadHeader "E0406" Value "A header condition or a header value that cannot be one."
    MixedProtocols "E0408" File "A route names listeners of different protocols."
    OtherProtocol "E0409" File "A route key that means nothing on listeners of its protocol."
    BadAlpn "E0410" Value "A protocol name that no ClientHello has room for."
    OtherRetry "E0411" Tables "A key of `retry` that does not go with the others."

    StickyNeedsHttp "E0501" Value "Stickiness by a cookie or header on a listener that carries none."
    BadCookieName "E0502" Value "A cookie name that is not a token."
    BadCookieAttribute "E0503" Value "A cookie attribute that a browser would not understand."
    OtherMode "E0504" Tables "A sticky key or value that does not go with the others."
    BadStore "E0505" Value "A store that is not given as a Redis address."

    NoBackends "E0601" Tables "A pool without a backend."
    DuplicateBackend "E0602" Value "Two backends of one pool have the same name or the same address."
    HostNameBackend "E0603" Value "A backend is given by host name."
    OtherCheck "E0604" Tables "A key of the http check on a check of another type."
    ProxyShared "E0605" Tables "PROXY headers, or the address of one client, on connections that clients share."
    ProxyForm "E0606" Tables "PROXY headers of a form that datagrams do not have."
    BalancerNeedsHttp "E0607" Tables "A pool that chooses by what only a request has, and connections that are none."
    OtherLimit "E0608" Tables "A key of a pool that means nothing for what listeners lead there."
    FallbackLoop "E0609" Headers "A pool takes over for itself."

    UnknownVariable "E0701" Value "A value with a variable that does not exist there."
    ProtectedHeader "E0702" Value "A filter that would change a header which weir must keep right."
    BadRegex "E0703" Value "A regular expression that is none, or a group that it does not have."
    OtherFilter "E0704" Tables "A filter key that does not go with its type or with the others."
    BadRewrite "E0705" Value "A path or host that a rewrite or redirect could not send."
    BadOrigin "E0706" Value "An origin that no browser sends, or that could do more than is meant."
    BadFilterFile "E0707" Value "A file of a filter that cannot be used."

    NoClientCa "E0801" Tables "Clients are asked for certificates, and no file says whose are good; or the other way round."
    HalfPair "E0802" Tables "A certificate without a key, or a key without a certificate."
    BadServerName "E0803" Value "A name that no TLS server can have."
    BadTlsFile "E0804" Value "A file of certificates or a key that cannot be used."

    OtherDiscovery "E0901" Tables "A key of discovery that does not go with its type."
    BadDomainName "E0902" Value "A name to look up that no host can have."
    BadUrl "E0903" Value "A URL that weir cannot ask."
    OtherScale "E0904" Tables "A key of scale that does not go with the others."

    DeniedAnyway "W0303" Value "An allowed network that lies in a denied one, so that nobody of it may come in."
    ProxyUnheard "W0304" File "A listener accepts PROXY headers, and nobody is trusted to send them."

    NoRoutes "W0401" File "There is no route, so that every request is answered 404."
    HostTaken "W0402" Tables "One of a route's hosts is taken by an earlier route with the same match."
    IdleListener "W0403" File "No route leads from a listener, so that every request to it is answered 404."

    InsecureSameSite "W0501" Tables "SameSite=None without Secure: browsers drop such a cookie."
    ScaleOutMoves "W0502" Value "Clients whose sessions live in one server move when a server is added."
    CookiePrefix "W0503" Tables "A cookie name prefix whose promise the attributes do not keep."
    SharedCookie "W0504" Tables "Two sticky routes overwrite each other's cookie."
    StoreAlone "W0505" Tables "A store that several weirs share, and no secret that they share."

    SlowProbe "W0601" Tables "A health check may take longer than the time between two checks."
    UnusedPool "W0602" File "No route leads to a pool."
    NoSessions "W0603" File "A pool chooses by live sessions, and none are counted there."

    NeverReached "W0701" Tables "A filter that no request reaches."

    VerifyOff "W0801" Value "Backends need not prove who they are."
    CertificateEnds "W0802" Value "A certificate has expired, or soon will."
}

impl Code {
    /// Whether the file is refused because of it.
    pub fn severity(self) -> Severity {
        if self.text().starts_with('W') {
            Severity::Warning
        } else {
            Severity::Error
        }
    }

    /// Whether it is advice: the file says what was meant, and there is something to know about it. `weir check` tells it; a log
    /// that told it at every reload would only teach people to read past warnings.
    pub fn is_advice(self) -> bool {
        self == Code::ScaleOutMoves
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_in_order() {
        let texts: Vec<_> = Code::ALL.iter().map(|code| code.text()).collect();
        assert!(texts.windows(2).all(|pair| pair[0] < pair[1]), "{texts:?}");
        assert!(Code::ALL.iter().all(|c| c.explanation().ends_with('.')));
    }
}
