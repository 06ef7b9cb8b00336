"""Which field names bear secrets: words and word pairs, in the languages panels ship in.

A name is folded (NFKD without accents, invisible characters dropped, look-alike letters made Latin), split into words
at camelCase borders, digits and punctuation, and each run-together word (`dbpassword`) is cut into known words.
A name is secret when a secret word or phrase stands in it, unless the name says that it is *about* the secret:
its last word names a property (`token count`, `password policy`), its first asks (`has password`, `max tokens`), or a
harmless phrase covers the hit (`prompt tokens`, `primary key`). `key` is never secret alone, only with what it opens.

>>> names = SecretNames()
>>> [name for name in ("dbPassword", "api-key", "key", "token_count", "keyboard", "contraseña") if names.is_secret(name)]
['dbPassword', 'api-key', 'contraseña']

The vocabulary is data; `VOCABULARY` holds all of it, so that a digest of it changes with every word.
"""

import unicodedata
from collections.abc import Iterable, Sequence
from typing import Final

import re2

__all__ = ["ANCHOR_STEMS", "VOCABULARY", "SecretNames", "fold", "split_words"]

# Secret wherever they stand as a word.
WORDS: Final = """
password passwd passwort passphrase passcode passkey pwd pword psw pswd pswrd passwrd paswd passw pasword passwod pwrd
keypass keyphrase storepass htpasswd pw userpass userpw
secret token jwt jwe otp totp hotp cookie authorization authorisation authentification credential cred creds
dsn cvv cvc cvn puk psk bearer mnemonic csrf xsrf phpsessid jsessionid ssn ntlm keytab kubeconfig dockerconfigjson
dockercfg netrc pgpass privkey sshkey apikey seckey authkey rcon otpauth passwds passwords keystorepass
mdp motdepasse losenord passord adgangskode kodeord salasana tunnussana wachtwoord wachtzin kennwort losungswort
zugangsdaten anmeldedaten geheimnis geheimwort
contrasena contrasenya contrasinal clave secreto segreto segredo senha credenziale credenziali credencial credenciais
credenciales palavrapasse gettone jeton haslo sekret heslo jelszo lozinka zaporka geslo parool salasona slaptazodis
parol parola pasahitza sifre sandi katasandi lykilord fjalekalim matkhau kontrasena wagwoord nenosiri kodesandi
inloggegevens toegangscode geheim identifiants token tokeny zeton tajne haslem hasla
пароль пароля паролі секрет токен парола лозинка учетныеданные κωδικος συνθηματικο
""".split()

# Secret when the word is the last of the name (or only followed by words that change nothing, TRAILERS).
LAST_WORDS: Final = "pass pin salt pepper passe csrftoken authcode".split()

# Secret only as the whole name.
WHOLE_NAMES: Final = "auth csc creditcard ccnum conn connectionstring sessid".split()

TRAILERS: Final = """
hash hashed value new old text plain plaintext raw encrypted enc crypt md sha confirm confirmation repeat again code
number no num nr salt digest string str word phrase key cipher current previous prev default initial temp temporary
""".split()

# Harmless before a LAST_WORDS word.
NOT_LAST_AFTER: Final = """
season boarding bus travel day hall ski test first second third one two single multi low high band all partial gpio map
push location power ground header clock fast event lap battle mountain render shadow depth hyper expo by io board hat
""".split()

PHRASES: Final = (
    """
session id|session identifier|session token|session cookie|session key|sess id|connect sid|sid cookie
access token|connection string|connection uri|connection url|connect string|conn string|conn str|con str|jdbc url
recovery code|backup code|scratch code|rescue code|emergency code|restore code|recovery phrase|seed phrase
recovery key|backup phrase|wallet seed|totp seed|otp seed|seed word|secret seed|master seed|hd seed
webhook url|webhook uri|hook url|slack webhook|discord webhook|teams webhook|incoming webhook|callback secret
database url|database uri|db url|db uri|redis url|redis uri|mongo url|mongo uri|mongodb url|mongodb uri|postgres url
postgres uri|postgresql url|postgresql uri|mysql url|mysql uri|amqp url|amqp uri|rabbitmq url|broker url|cache url|celery broker
mailer url|smtp url|ldap url|elasticsearch url|clickhouse url|sqlalchemy uri|cloudinary url|storage url|queue url secret
auth code|authentication code|authorization code|verification code|verify code|activation code|confirmation code
login code|signin code|unlock code|access code|security code|mfa code|tfa code|factor code|fa code|sms code|reset code
one time code|one time pass|one time link|magic link|magic url|reset link|reset url|login link|login url token|signed url|presigned url
pre signed url|sas url|sas token|sas key|shared access signature|door code|gate code|safe code|alarm code|lock code|card code|device code
invite code secret|pairing code|passwort hash|id rsa|id dsa|id ed|id ecdsa|rsa private|ssh private|tls private|ssl private|private pem
wg private|wireguard private|private exponent|private jwk|basic auth|http auth|proxy auth|auth header|auth string|auth data|auth pass
auth info|auth secret|auth config|registry auth|docker auth|redis auth|auth payload|smtp auth|mfa secret|fa secret|mfa seed
security answer|secret answer|mother maiden|maiden name|challenge answer|saml response|saml assertion|client assertion|code verifier
card number|card num|card no|card pan|credit card number|creditcard number|cc number|cc num|cc no|ccnumber|cardnumber|debit card number
social security|snmp community|community string|snmp string|nt hash|lm hash|pass hash|pwd hash|shadow entry|user pass|db pass
bind pw|service account json|service account credential|gcp credential|key material|private pass|login data secret|unseal share
mot de passe|mots de passe|mot passe|phrase de passe|phrase secrete|code secret|code acces|code d acces|code de verification
parola d ordine|parola chiave segreta|palabra de paso|palabra de acceso|palavra passe|palavra de passe|codigo de acceso|codigo de acesso|codigo secreto
codigo de seguranca|codigo de seguridad|codigo de verificacion|codigo de verificacao|codice segreto|codice di accesso|codice di sicurezza
kata sandi|kata laluan|mat khau|ma bi mat|kod dostepu|kod weryfikacyjny|kody zapasowe|dane logowania
код доступа|код подтверждения|учетные данные|одноразовый код|резервные коды|секретное слово|ключевая фраза
κωδικος προσβασης|κλειδι api|zugangs code|sicherheits code|sicherheitscode|wiederherstellungscode|bestatigungscode
frase de recuperacion|codigos de recuperacion|codigo de recuperacao|codes de recuperation|code de recuperation|codici di recupero
kurtarma kodu|dogrulama kodu|guvenlik kodu|erisim kodu|erisim jetonu|giris kodu|herstelcode|beveiligingscode
gizli soz|tajny klic|hemlig nyckel|hemmelig nogle|hemmelighet|salainen avain
""".replace("\n", "|")
    .strip("|")
    .split("|")
)

# "key" in each language, secret beside a qualifier.
KEYS: Final = """
key keys schlussel schluessel cle clef cles clave llave chave chiave chiavi sleutel klucz klucze ключ ключи anahtar anahtari
anahtarı klic kluc kulcs nyckel nogle nokkel avain cheie kljuc kunci khoa raktas atslega voti clau κλειδι
""".split()
KEY_QUALIFIERS: Final = """
api private priv prv secret ssh encryption encrypt decryption decrypt access signing sign signature master app application
auth authentication authorization account service storage shared symmetric rsa dsa ecdsa ed gpg pgp pem tls ssl host deploy webhook crypto
cipher aes des hmac jwt jwk jws recovery wallet vpn wireguard wg wifi wlan wpa wep network root admin session server client
consumer developer dev rest integration personal bot agent daemon node cluster join unseal db database user psk preshared
aws amazon gcp google azure cloudflare cf stripe paypal sendgrid mailgun mailchimp twilio github gitlab bitbucket openai
anthropic claude gemini mistral hetzner digitalocean linode vultr ovh slack discord telegram shopify square datadog newrelic
sentry pusher firebase fcm gcm algolia maps recaptcha hcaptcha turnstile captcha steam curseforge modrinth whmcs cpanel plesk
proxmox pterodactyl pelican virtualizor solusvm namecheap godaddy porkbun rsync backup restic borg kms vault hsm paddle braintree adyen mollie
razorpay klarna transfer push vapid license secret_license signature scram rndc tsig dnssec ddns s3 minio wasabi b2 backblaze object_storage
privat privater privaten geheim geheimer geheimes zugang zugangs zugriff zugriffs verschlusselungs signatur
prive privee secrete secret acces chiffrement cryptage privada privado secreta secreto acceso cifrado acesso segura segreta
segreto privata accesso cifratura prive geheime toegang toegangs prywatny tajny dostepu szyfrowania
приватный закрытый секретный доступа шифрования апи gizli ozel erisim sifreleme soukromy tajny titkos privat hemlig rahasia
""".split()
# `license key` and `key` stay readable: users of a licence-key panel recover keys from the log (an operator can add them).
KEY_QUALIFIERS_KEPT: Final = frozenset(
    {"license", "licence", "product", "cd", "secret_license", "object_storage"}
)
KEY_ENVIRONMENTS: Final = frozenset("live test prod production sandbox staging stage".split())
CONNECTORS: Final = frozenset(
    "de d di da do du des del der van von la le el of the d l para per til for для".split()
)

# The name is about the secret when it ends in one of these and the word is not part of the phrase itself.
ABOUT_LAST: Final = """
count counts counter length len size limit quota budget policy policies type types kind enabled enable disabled disable required require
requirement requirements mandatory optional expired expires expiry expiration expire exp ttl age lifetime lifespan duration period
interval timeout at on date time timestamp datetime since until days hours minutes seconds sec secs ms updated created changed
modified rotated revoked used usage uses last status state strength score complexity min max minimum maximum version format
algorithm algo alg attempts attempt tries retries failures failed rotation required resets name names label title description desc
comment id ids uuid guid uri url urls endpoint endpoints path paths file filename dir directory folder scope scopes issuer audience provider
providers manager method methods mode field column prompt placeholder input button message error errors rule rules regex
validator validation valid invalid verified confirmed consent banner notice domain samesite secure httponly set present exists
existing configured supported allowed allow allowlist bucket price cost balance symbol supply index position per rate remaining left available sum
average avg level layer app device backend source server owner user username login email fingerprint thumbprint prefix suffix
four last4 color colour icon visible visibility hidden shown protected protection locked reset_required needed active inactive
generator generated hasher hashing encoder parser tokenizer length policy history_size event events log logs hint_enabled settings
page form screen tab section link route controller service handler middleware class table model region zone
channel delivery question questions support rotation_days cycle window
anzahl lange typ aktiv aktiviert ablauf datum richtlinie nombre longueur expire_le longitud cantidad tipo fecha
""".split()

# Words that make the whole name a question or a limit about the secret.
ABOUT_FIRST: Final = """
has have is are was requires require required needs need max min maximum minimum num number total show hide allow allows allowed
enable enabled disable disabled forgot must can should count use uses support supports accept accepts expect min_length
nb anzahl ist hat
""".split()

HARMLESS_PHRASES: Final = (
    """
prompt token|completion token|total token|max token|min token|input token|output token|cached token|reasoning token|token used
context token|token per|token bucket|token ring|token sale|token economy|non fungible token|token symbol|token holder
cookie consent|cookie policy|cookie banner|cookie notice|cookie law|accept cookie|cookie jar|fortune cookie|cookie preference
cookie category|cookie setting|password less|passwordless|password manager|password policy|password strength|password complexity|password reset required
secret santa|top secret level|open secret|parola chiave|palabra clave|palabra claves|palavra chave|mot cle|clave primaria|clave foranea|clave publica
clave producto|clave de producto|clave licencia|clave de licencia|clave unica|clave valor|public key|primary key|foreign key
sort key|partition key|unique key|cache key|composite key|index key|translation key|lookup key|hash key|range key|row key
group key|routing key|shard key|natural key|surrogate key|candidate key|config key|setting key|metric key|object key|dedup key
public api key|publishable key|public token key|pass through|pass rate|pass count|pass fail|cookie cutter|token ring|pin code area
postal pin code|address pin code|shipping pin code|billing pin code|zip pin code|site key
authorization type|authorization status|otp method|totp method|token standard
enable auth|ssn last|salt lake|salt water|sea salt
""".replace("\n", "|")
    .strip("|")
    .split("|")
)

# Look like a secret word run together with another, and are not.
HARMLESS_WORDS: Final = frozenset(
    """
compass encompass bypass passenger passage passive passion passport passthrough passthru trespass surpass overpass underpass
passed passes passing passable passback passbook keyboard keypad keynote turkey monkey donkey hockey jockey keyword keywords
author authors authored authority authorities authentic authenticated authorized authorize authoring coauthor
secretary secretariat secretion tokenizer tokenization tokenize tokenized tokenizers spinning pinned pinning shipping spin opinion
pinpoint pineapple pink ping pinterest spinner typing mapping dependency pagination cookiecutter cookbook
passwordless otpauthenabled saltwater basalt cobalt asphalt somersault token2022 botpress hotpink potpourri laptop desktop
classification assassin ambassador compassion passat parole parolee
""".split()
)

# Words that stand before or after a secret word when a name is written without separators.
COMPANIONS: Final = """
db database data mysql mariadb postgres postgresql pg mongo mongodb redis sql ftp sftp smtp imap pop mail email ldap rcon
user usr username admin adm root my your new old current cur confirm confirmation repeat retype temp tmp default master
main server client api app application service system sys login logon signin account acc auth oauth access refresh reset
remember session sess bot web http https proxy socks vpn wifi wlan router node panel host ssh ssl tls private priv public
secret encryption encrypted enc hashed hash plain raw card credit customer member staff super sudo bind kunden benutzer nutzer
datenbank neues altes aktuelles admins usuario utilisateur utente gebruiker senha nova novo minha mi nueva nuevo actual
id ids code key value file token verify verification security device push csrf xsrf github gitlab slack discord telegram
stripe paypal aws azure google webhook url uri string connection recovery backup seed phrase two factor mfa totp store trust
count length policy type enabled expires expiry name manager size limit strength invite activation personal guest
""".split()

# Long and unambiguous: secret inside any word (`Datenbankpasswort`, `paßwörter`, `пароли`).
STRONG: Final = """
password passwort passwoert passwd passphras passcode kennwort kennwoert motdepasse wachtwoord contrasen contrasin losenord losningsord
adgangskode salasana jelszo lozink zapork slaptazod sifre haslo hasel parool лозинк парол пароль секретн токен
credential credenzial credencia apikey privatekey secretkey accesskey encryptionkey signingkey accesstoken refreshtoken authtoken
zugangsdaten zugangscode zugangsschlus zugriffsschlus apischlus geheimschlus privatschlus zugangsschlues verschlusselungsschlus
geheimnis geheimwort toegangssleutel apisleutel beveiligingscode sessionid connectionstring recoverycode backupcode
sicherungscode wiederherstellungs webhookurl databaseurl katasandi matkhau sessiontoken lykilord κωδικ συνθηματικ
""".split()

# Scripts without word borders: secret anywhere in the name.
SUBSTRINGS: Final = (
    """
パスワード パスフレーズ パスコード 暗証番号 暗証 シークレット トークン 秘密鍵 秘密の 秘密情報 認証コード 認証情報 資格情報 アクセスキー APIキー 暗号鍵 暗号化キー 合言葉 クッキー
密码 密碼 口令 令牌 密钥 密鑰 秘钥 秘鑰 私钥 私鑰 金鑰 凭证 凭据 憑證 验证码 驗證碼 机密 机密信息 访问码 通行码 通行碼 助记词 动态码 安全码
비밀번호 암호 비번 패스워드 토큰 시크릿 비밀키 개인키 인증코드 인증번호 접근키 액세스키 API키
كلمة المرور كلمةالمرور كلمة السر كلمةالسر رمز الدخول الرقم السري كلمه المرور گذرواژه رمز عبور رمزعبور
סיסמה סיסמא ססמה पासवर्ड पासकोड รหัสผ่าน พาสเวิร์ด পাসওয়ার্ড கடவுச்சொல்
""".replace("كلمة المرور", "كلمةالمرور")
    .replace("كلمة السر", "كلمةالسر")
    .replace("كلمه المرور", "كلمهالمرور")
    .replace("رمز الدخول", "رمزالدخول")
    .replace("الرقم السري", "الرقمالسري")
    .replace("رمز عبور", "رمزعبور")
    .split()
)

_SPECIAL: Final = str.maketrans(
    {
        "ß": "ss",
        "ł": "l",
        "Ł": "L",
        "ø": "o",
        "Ø": "O",
        "đ": "d",
        "Đ": "D",
        "ð": "d",
        "ı": "i",
        "æ": "ae",
        "Æ": "AE",
        "œ": "oe",
        "þ": "th",
    }
)
# Letters of other scripts that look like Latin ones; only used beside the name as it is written.
_LOOK_ALIKES: Final = str.maketrans(
    "аеорсухіјѕԁһӏքкмтвнпгАВЕКМНОРСТХУІЈЅαβεικνορτυχωΑΒΕΖΗΙΚΜΝΟΡΤΥΧᴀᴄᴅᴇᴊᴋᴍᴏᴘꜱᴛᴜᴠᴡᴢʀɴɪʏɡɑⅼꓑɢʜʟƽʙꓢօոսցզտա",
    "aeopcyxijsdhlpkmtbhnrABEKMHOPCTXYIJSabeiknoptuxwABEZHIKMNOPTYXacdejkmopstuvwzrniygalPghlsbSonugqsw",
)
_LEET: Final = str.maketrans("430157@$!", "aeoistasi")
_LEET_STRONG: Final = (
    "password",
    "passwd",
    "secret",
    "token",
    "passphrase",
    "passwort",
    "credential",
    "apikey",
)
_NAME_LIMIT: Final = 256
_SEGMENT_LIMIT: Final = 48


def fold(text: str) -> str:
    """Without accents, invisible characters and compatibility forms; case is kept. ASCII comes back as it is."""
    if text.isascii():
        return text
    # A lone surrogate has no normal form; it becomes a question mark and so a word border.
    whole = unicodedata.normalize("NFKD", text.encode("utf-8", "replace").decode().translate(_SPECIAL))
    kept = "".join(c for c in whole if unicodedata.category(c) not in {"Mn", "Cf", "Cc"} and c != "\u3164")
    return unicodedata.normalize("NFC", kept)


def split_words(folded: str) -> list[str]:
    """Lower-case words: cut at camelCase borders, digits and whatever is not a letter; plurals made singular."""
    words: list[str] = []
    start = -1
    previous = ""
    for position, character in enumerate(folded):
        if not character.isalpha():
            if start >= 0:
                words.append(folded[start:position])
            start = -1
        elif start < 0:
            start = position
        elif character.isupper() and not previous.isupper():
            words.append(folded[start:position])
            start = position
        elif previous.isupper() and character.islower() and position - start > 1:
            # HTTPToken: the last capital begins the next word.
            words.append(folded[start : position - 1])
            start = position - 1
        previous = character
    if start >= 0:
        words.append(folded[start:])
    return [_singular(word.casefold()) for word in words]


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word[-1] == "s" and word[-2] != "s" else word


def _phrase(text: str) -> tuple[str, ...]:
    return tuple(split_words(fold(text)))


def _vocabulary() -> dict[str, list[str]]:
    return {
        "words": WORDS, "last": LAST_WORDS, "whole": WHOLE_NAMES, "trailers": TRAILERS, "not_last": NOT_LAST_AFTER,
        "phrases": PHRASES, "keys": KEYS, "qualifiers": KEY_QUALIFIERS, "kept": sorted(KEY_QUALIFIERS_KEPT),
        "environments": sorted(KEY_ENVIRONMENTS), "connectors": sorted(CONNECTORS), "about_last": ABOUT_LAST,
        "about_first": ABOUT_FIRST, "harmless": HARMLESS_PHRASES, "harmless_words": sorted(HARMLESS_WORDS),
        "companions": COMPANIONS, "strong": STRONG, "substrings": SUBSTRINGS,
    }  # fmt: skip


VOCABULARY: Final = _vocabulary()


class _Phrases:
    """Finds the phrases of a list in a list of words."""

    __slots__ = ("_by_first",)

    def __init__(self, phrases: Iterable[tuple[str, ...]]) -> None:
        self._by_first: dict[str, list[tuple[str, ...]]] = {}
        for phrase in phrases:
            if phrase:
                self._by_first.setdefault(phrase[0], []).append(phrase)

    def spans(self, words: Sequence[str]) -> list[tuple[int, int]]:
        """Half-open ranges of word positions."""
        found = []
        for start, word in enumerate(words):
            for phrase in self._by_first.get(word, ()):
                if tuple(words[start : start + len(phrase)]) == phrase:
                    found.append((start, start + len(phrase)))
        return found


def _set(words: Iterable[str]) -> frozenset[str]:
    return frozenset(_singular(fold(word).casefold()) for word in words)


_WORDS = _set(WORDS)
_LAST_WORDS = _set(LAST_WORDS)
_WHOLE = _set(WHOLE_NAMES)
_TRAILERS = _set(TRAILERS)
_NOT_LAST_AFTER = _set(NOT_LAST_AFTER)
_KEYS = _set(KEYS)
_QUALIFIERS = _set(KEY_QUALIFIERS) - KEY_QUALIFIERS_KEPT
_ABOUT_LAST = _set(ABOUT_LAST)
_ABOUT_FIRST = _set(ABOUT_FIRST)
_HARMLESS_WORDS = _set(HARMLESS_WORDS)
_PHRASES = _Phrases([_phrase(text) for text in PHRASES])
_HARMLESS = [_phrase(text) for text in HARMLESS_PHRASES]
_STRONG = re2.compile("|".join(sorted({re2.escape(fold(word)) for word in STRONG})))
_SUBSTRINGS = tuple(fold(text).casefold() for text in SUBSTRINGS)
_PHRASE_WORDS = frozenset(word for text in PHRASES for word in _phrase(text) if len(word) > 2)
_PARTS = (
    _set(COMPANIONS)
    | {word for word in COMPANIONS}
    | _WORDS
    | _LAST_WORDS
    | _PHRASE_WORDS
    | {"tokens", "keys", "codes"}
)
_SECRET_PARTS = (
    _WORDS | _LAST_WORDS | {"key", "code", "sid", "session", "connection", "webhook", "database", "card"}
)
_PART_LIMIT = max(map(len, _PARTS))


def _anchor_stems() -> tuple[str, ...]:
    """Short ASCII strings of which every secret ASCII name contains one, once it is lower-cased."""
    stems = {word for word in _WORDS | _LAST_WORDS | _WHOLE if word.isascii()}
    # The longest word of a phrase is the rarest: `session id` is looked for as `session`.
    stems |= {max(_phrase(text), key=len) for text in PHRASES if text.isascii()}
    stems |= {word for word in _KEYS if word.isascii()} | {word for word in STRONG if word.isascii()}
    # A stem inside which another one lies adds nothing.
    return tuple(
        sorted(stem for stem in stems if not any(other != stem and other in stem for other in stems))
    )


ANCHOR_STEMS: Final = _anchor_stems()


def _segments(word: str) -> list[str] | None:
    """The word cut into the fewest known parts, at least one of them secret; None if it can not be."""
    best: list[list[str] | None] = [[]] + [None] * len(word)
    for end in range(1, len(word) + 1):
        for start in range(max(0, end - _PART_LIMIT), end):
            head = best[start]
            if head is not None and word[start:end] in _PARTS:
                tail = best[end]
                if tail is None or len(head) + 1 < len(tail):
                    best[end] = [*head, word[start:end]]
    parts = best[-1]
    if parts is None or _SECRET_PARTS.isdisjoint(map(_singular, parts)):
        return None
    return [_singular(part) for part in parts]


class SecretNames:
    """The rules with an operator's own words added. `is_secret` is pure; keep its answers in a cache of your own."""

    __slots__ = ("_extra", "_extra_stems", "_harmless", "_stems")

    def __init__(self, extra: Sequence[str] = (), harmless: Sequence[str] = ()) -> None:
        """`ValueError` for an entry without a letter, and for one that is both secret and harmless."""
        extra_phrases, harmless_phrases = ([_checked(text) for text in texts] for texts in (extra, harmless))
        for phrase in extra_phrases:
            if phrase in harmless_phrases:
                raise ValueError(f"both secret and harmless: {' '.join(phrase)!r}")
        self._extra = _Phrases(extra_phrases)
        self._harmless = _Phrases([*_HARMLESS, *harmless_phrases])
        self._extra_stems = tuple(sorted({max(phrase, key=len) for phrase in extra_phrases}))
        self._stems = re2.compile(
            "|".join(map(re2.escape, (*ANCHOR_STEMS, *filter(str.isascii, self._extra_stems))))
        )

    @property
    def stems(self) -> tuple[str, ...]:
        """`ANCHOR_STEMS` and the longest words of the operator's own entries."""
        return (*ANCHOR_STEMS, *self._extra_stems)

    def is_secret(self, name: str) -> bool:
        """Whether what stands under this name is secret. Linear in the length of the name."""
        if name.isascii():
            if self._stems.search(name.lower()) is not None:
                return self._judge(name)
            return not name.isalpha() and _leet(name)
        folded = fold(name)
        lowered = folded.casefold().replace(" ", "").replace("_", "")
        return (
            any(text in lowered for text in _SUBSTRINGS)
            or self._judge(folded)
            or self._judge(folded.translate(_LOOK_ALIKES))
            or _leet(folded)
        )

    def ends_secret(self, words: str) -> bool:
        """Whether a phrase of prose ("the reset token") ends in a secret word: what follows is then its value."""
        parts = self._cut(split_words(fold(words)))
        return any(end == len(parts) for _, end in self._hits(parts)) if parts else False

    def _judge(self, folded: str) -> bool:
        words = self._cut(split_words(folded))
        hits = self._hits(words)
        if not hits:
            return False
        inside = {position for start, end in hits for position in range(start, end)}
        last = len(words) - 1
        if last not in inside and words[last] in _ABOUT_LAST:
            return False
        # `enable password` and `enable secret` are the privileged passwords of network gear.
        if words[0] == "enable" and len(words) == 2:
            return True
        return 0 in inside or words[0] not in _ABOUT_FIRST

    def _cut(self, words: list[str]) -> list[str]:
        cut: list[str] = []
        for word in words:
            if word in _PARTS or word in _HARMLESS_WORDS or not 5 <= len(word) <= _SEGMENT_LIMIT:
                cut.append(word)
            else:
                cut.extend(_segments(word) or [word])
        return cut

    def _hits(self, words: Sequence[str]) -> list[tuple[int, int]]:
        found = _PHRASES.spans(words) + _key_spans(words) + self._extra.spans(words)
        for position, word in enumerate(words):
            if word in _HARMLESS_WORDS:
                continue
            if word in _WORDS or _is_last_secret(words, position) or _STRONG.search(word) is not None:
                found.append((position, position + 1))
        if len(words) == 1 and words[0] in _WHOLE:
            found.append((0, 1))
        if not found:
            return found
        covers = self._harmless.spans(words)
        return [(a, b) for a, b in found if not any(c < b and a < d and d - c >= b - a for c, d in covers)]


def _checked(text: str) -> tuple[str, ...]:
    phrase = _phrase(text)
    if not phrase:
        raise ValueError(f"no word in {text!r}")
    return phrase


def _leet(name: str) -> bool:
    plain = "".join(split_words(name.translate(_LEET)))
    if not any(word in plain for word in _LEET_STRONG) or len(name) > _NAME_LIMIT:
        return False
    # Only when the digits stand for letters: `password2_count` was judged above.
    letters = "".join(split_words(name))
    return not any(word in letters for word in _LEET_STRONG)


def _is_last_secret(words: Sequence[str], position: int) -> bool:
    if words[position] not in _LAST_WORDS:
        return False
    if position and words[position - 1] in _NOT_LAST_AFTER:
        return False
    return all(word in _TRAILERS for word in words[position + 1 :])


def _key_spans(words: Sequence[str]) -> list[tuple[int, int]]:
    """`api key`, `clé d'accès`, `stripe live key`: a key beside what it opens, small words between them skipped."""
    if _KEYS.isdisjoint(words):
        return []
    places = [i for i, word in enumerate(words) if word not in CONNECTORS and word not in KEY_ENVIRONMENTS]
    spans = []
    for left, right in zip(places, places[1:], strict=False):
        first, second = words[left], words[right]
        if second in _KEYS and first in _QUALIFIERS:
            spans.append((left, right + 1))
        elif first in _KEYS and first != "key" and second in _QUALIFIERS:
            spans.append((left, right + 1))
    return spans
