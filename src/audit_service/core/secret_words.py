"""The vocabulary of `secret_names`: plain data, one list for each role a word can play.

Words are written as people write them; they are folded before use. Spaces part words; bars and line ends part
phrases. Adding a word changes the digest of every ruleset.
"""

from typing import Final

__all__ = ["VOCABULARY"]


def _words(text: str) -> list[str]:
    return text.split()


def _phrases(text: str) -> list[str]:
    return [phrase for line in text.splitlines() for phrase in line.split("|") if phrase]


# Secret wherever they stand as a word.
WORDS: Final = _words(
    """
password passwd passwort passphrase passcode passkey pwd pword psw pswd pswrd passwrd paswd passw pasword
passwod pwrd keypass keyphrase storepass htpasswd pw userpass userpw secret token jwt jwe otp totp hotp
cookie authorization authorisation authentification credential cred creds dsn cvv cvc cvn puk psk bearer
mnemonic csrf xsrf phpsessid jsessionid ssn ntlm keytab kubeconfig dockerconfigjson dockercfg netrc pgpass
privkey sshkey apikey seckey authkey rcon otpauth passwds passwords keystorepass mdp motdepasse losenord
passord adgangskode kodeord salasana tunnussana wachtwoord wachtzin kennwort losungswort zugangsdaten
anmeldedaten geheimnis geheimwort contrasena contrasenya contrasinal clave secreto segreto segredo senha
credenziale credenziali credencial credenciais credenciales palavrapasse gettone jeton haslo sekret heslo
jelszo lozinka zaporka geslo parool salasona slaptazodis parol parola pasahitza sifre sandi katasandi
lykilord fjalekalim matkhau kontrasena wagwoord nenosiri kodesandi inloggegevens toegangscode geheim
tokeny zeton tajne haslem hasla пароль пароля паролі секрет токен парола лозинка учетныеданные κωδικος
συνθηματικο secreta secrete segreta segrete secretas secretos segredos geheime geheimer geheimes geheimen
xprv tajna tajemstvi tajomstvo titok titkos hemlighet hemmelighed hemmelighet salaisuus wachtwoordzin
toegangstoken passwortsatz passwortphrase lozinke parolasi parolanizi belirtec belirteci sifresi jetonu
jetony sirri gizlisi tokenu tokena tokenem токены токена токеном пинкод пин tresorcode safecode
geldkarte_pin xpriv keyring keyfile
"""
)

# Secret when the word is the last of the name, or only followed by TRAILERS.
LAST_WORDS: Final = _words("""
pass pin salt pepper passe csrftoken authcode tok pfx pem jks pkcs
""")

# Change nothing about what stands before them.
TRAILERS: Final = _words("""
hash hashed value new old text plain plaintext raw encrypted enc crypt md sha confirm confirmation repeat
again code number no num nr salt digest string str word phrase key cipher current previous prev default
initial temp temporary base blob content
""")

# Make a word of LAST_WORDS harmless when they stand before it: `boarding pass`, `gpio pin`.
NOT_LAST_AFTER: Final = _words(
    """
season boarding bus travel day hall ski test first second third one two single multi low high band all
partial gpio map push location power ground header clock fast event lap battle mountain render shadow
depth hyper dkim spf dmarc expo by io board hat shipping billing postal area address delivery home office press media
backstage vip transit train metro museum park gym tik cert certificate ca chain fullchain csr public
"""
)

# Secret only as the whole name.
WHOLE_NAMES: Final = _words("""
auth csc creditcard ccnum conn connectionstring sessid
""")

# Of WHOLE_NAMES, those that also name a harmless object (`"auth": {"user": …}`): only a scalar is secret.
SCALAR_NAMES: Final = ["auth"]

# Secret together.
PHRASES: Final = _phrases(
    """
session id|session identifier|session token|session cookie|session key|sess id|connect sid|sid cookie
access token|connection string|connection uri|connection url|connect string|conn string|conn str|con str
jdbc url|recovery phrase|seed phrase|recovery key|backup phrase|wallet seed|totp seed|otp seed|seed word
secret seed|master seed|hd seed|webhook url|webhook uri|slack webhook|discord webhook|teams webhook
incoming webhook|callback secret|database url|database uri|db url|db uri|redis url|redis uri|mongo url
mongo uri|mongodb url|mongodb uri|postgres url|postgres uri|postgresql url|postgresql uri|mysql url
mysql uri|amqp url|amqp uri|rabbitmq url|broker url|celery broker|mailer url|smtp url|ldap url
elasticsearch url|clickhouse url|sqlalchemy uri|cloudinary url|storage url|one time pass|one time code
one time link|magic link|magic url|reset link|reset url|login link|login url token|signed url
presigned url|pre signed url|sas url|sas token|sas key|shared access signature|invite code secret
passwort hash|id rsa|id dsa|id ecdsa|rsa private|ssh private|tls private|ssl private|private pem
wg private|wireguard private|private exponent|private jwk|basic auth|http auth|proxy auth|auth header
auth string|auth data|auth pass|auth info|auth secret|auth config|registry auth|docker auth|redis auth
auth payload|smtp auth|mfa secret|fa secret|mfa seed|security answer|secret answer|mother maiden
maiden name|challenge answer|saml response|saml assertion|client assertion|code verifier|card number
card num|card no|card pan|credit card number|creditcard number|cc number|cc num|cc no|ccnumber|cardnumber
debit card number|social security|snmp community|community string|snmp string|nt hash|lm hash|pass hash
pwd hash|shadow entry|user pass|db pass|bind pw|service account json|service account credential
gcp credential|key material|private pass|login data secret|unseal share|mot de passe|mots de passe
mot passe|phrase de passe|phrase secrete|code secret|code acces|code d acces|code de verification
parola d ordine|parola chiave segreta|palabra de paso|palabra de acceso|palavra passe|palavra de passe
codigo de acceso|codigo de acesso|codigo secreto|codigo de seguranca|codigo de seguridad
codigo de verificacion|codigo de verificacao|codice segreto|codice di accesso|codice di sicurezza
kata sandi|kata laluan|mat khau|ma bi mat|kod dostepu|kod weryfikacyjny|kody zapasowe|dane logowania
код доступа|код подтверждения|учетные данные|одноразовый код|резервные коды|секретное слово|ключевая фраза
κωδικος προσβασης|κλειδι api|sicherheitscode|wiederherstellungscode|bestatigungscode|frase de recuperacion
codigos de recuperacion|codigo de recuperacao|codes de recuperation|code de recuperation
codici di recupero|kurtarma kodu|dogrulama kodu|guvenlik kodu|erisim kodu|erisim jetonu|giris kodu
herstelcode|beveiligingscode|gizli soz|tajny klic|hemlig nyckel|hemmelig nogle|hemmelighet|salainen avain
identifiants de connexion|identifiants connexion|keystore json|keystore file content|pin tarjeta|pin carta
pin cartao|pin karte|pin kaart|pincode kaart|pin nummer|numero pin|pin kodu|pin de tarjeta|pin della carta
gizli kelime|gizli kod|gizli soru cevabi|gizli token|gizli sifre|gizli bilgi|erisim belirteci
bilgi sifresi|hasla dostepu|numero de carte|numero de tarjeta|numero carta|numero do cartao|kartennummer
numer karty|kart numarasi|номер карты|код карты|kaartnummer|secret recovery|recovery word|recovery secret
account recovery|private spend|private seed|question answer|question an|domain epp|hook url|hook uri
slack hook|discord hook|teams hook|dkim private|
client credential|ответ на вопрос|секретный ответ|des key|age key
numero di carta|numero carte|card numara|номер карт|tek kullanimlik kod|tek kullanimlik sifre
paylasilan gizli|ortak gizli|access hash|stripe sk
"""
)

# "Key" in each language: secret beside a word of KEY_QUALIFIERS, harmless alone.
KEYS: Final = _words("""
key keys schlussel schluessel cle clef cles clave llave chave chiave chiavi sleutel klucz klucze ключ
ключи anahtar anahtari anahtarı klic kluc kulcs nyckel nogle nokkel avain cheie kljuc kunci khoa raktas
atslega voti clau κλειδι
""")

# What a secret key opens or does. Never `license`, `product` or `cd`: users of a licence-key panel recover
# keys from the log (an operator can add `license key` as a word).
KEY_QUALIFIERS: Final = _words(
    """
api private priv prv secret ssh encryption encrypt decryption decrypt access signing sign signature master
app application auth authentication authorization account service storage shared symmetric rsa dsa ecdsa
ed gpg pgp pem tls ssl host deploy webhook crypto cipher aes des hmac jwt jwk jws recovery wallet vpn
wireguard wg wifi wlan wpa wep network root admin session server client consumer developer dev rest
integration personal bot agent daemon cluster join unseal db database user psk preshared aws amazon gcp
google azure cloudflare cf stripe paypal sendgrid mailgun mailchimp twilio github gitlab bitbucket openai
anthropic claude gemini mistral hetzner digitalocean linode vultr ovh slack discord telegram shopify
square datadog newrelic sentry pusher firebase fcm gcm algolia recaptcha hcaptcha turnstile captcha steam
curseforge modrinth whmcs cpanel plesk proxmox pterodactyl pelican virtualizor solusvm namecheap godaddy
porkbun rsync backup restic borg kms vault hsm paddle braintree adyen mollie razorpay klarna transfer push
vapid scram rndc tsig dnssec ddns s3 minio wasabi b2 backblaze privat privater privaten geheim geheimer
geheimes zugang zugangs zugriff zugriffs verschlusselungs signatur prive privee secrete acces chiffrement
cryptage privada privado secreta secreto acceso cifrado acesso segura segreta segreto privata accesso
cifratura geheime toegang toegangs prywatny tajny dostepu szyfrowania приватный закрытый секретный доступа
шифрования апи gizli ozel erisim sifreleme soukromy titkos hemlig rahasia login stream restricted spend
disk volume drive zfs luks certificate cert pkcs unlock control criptografia criptografica crittografia
crittografica chiffrage versleuteling versleutelings poufny szyfrujacy prywatnego pristupovy sifrovaci
доступу шифрування приватний закритий секретний личный kryptering krypterings atkomst adgangs tilgangs
salaus enkripsi akses hozzaferesi titkositasi criptare confidentiel reservada 3des hotp enroll enrollment
tacacs isakmp ike ikev ipsec openvpn static transaction eigrp ospf bgp vrrp hsrp lorawan zigbee zwave mesh
bluetooth matter epp apns apn fcmv ceph cephx rados radosgw rgw rbd osd gluster iscsi chap dkim swift enc dec
jks keystore
truststore apple maxmind ipinfo mapbox fastly bunny akamai keycdn vercel netlify heroku fly railway upcloud
scaleway contabo
exoscale oci alibaba tencent huawei yandex sparkpost mandrill postmark resend brevo sendinblue mailjet mailcow
plivo vonage
nexmo messagebird zoom zendesk intercom hubspot salesforce pipedrive zoho freshdesk jira confluence trello
asana notion
airtable figma grafana prometheus influx influxdb elastic elasticsearch kibana opsgenie pagerduty statuspage
rollbar bugsnag
honeycomb splunk loggly papertrail betterstack uptimerobot jenkins circleci travis buildkite drone argocd
terraform pulumi
ansible consul nomad etcd rabbitmq kafka nats redis mongo mongodb mysql mariadb postgres postgresql clickhouse
supabase
planetscale neon snowflake databricks cohere groq huggingface replicate perplexity deepseek elevenlabs
coinbase binance
kraken skrill payoneer paystack flutterwave coingate blesta clientexec hostbill directadmin ispconfig webmin
virtualmin
enom resellerclub opensrs namesilo gandi dnsimple dynadot netcup ionos strato inwx virustotal shodan abuseipdb akismet
"""
)

# May stand between a qualifier and its key: `stripe live key`.
KEY_ENVIRONMENTS: Final = _words("""
live prod production sandbox stage staging test
""")

# Beginnings of qualifiers, of keys and codes alike, in languages that inflect: `sekretny`, `шифровальный`.
QUALIFIER_STEMS: Final = _words(
    """
шифр секрет приват закрыт скрыт доступ подтвержд восстановл безопасн резервн одноразов дешифр sekret tajn
prywatn szyfr odzyskiw bezpiecz potwierdz dostep weryfik zapasow gizli ozel sifre erisim yedek kurtarma
dogrulama guvenlik onay cifr crypt criptogr crittogr chiffr cripta decifr descifr versleutel toegang
verschlussel entschlussel zugang zugriff sicherheit wiederherstell bestatig verifiz beveilig herstel
verificat bevestig enkrip kriptir sifrov titkos biztonsag hemlig hemmelig saker sikker krypter salain
rahasia keamanan verif recuper autent autoriz secur sigur firma assinatur podpis подпис imza ondertek
signatur unterschrift maestr mestr maitr мастер hoofd haupt confiden vertrau конфиденц poufn powiern
compartid condivis partag gedeeld paylas gemeinsam tekkullan jednoraz eenmalig einmal
"""
)

# "Code" in each language: secret beside a word of CODE_QUALIFIERS, harmless alone.
CODES: Final = _words(
    """
code codes codigo codigos codice codici kod kody kodu kode codul koden koodi код коды κωδικος kodlar
kodlari kodow kodov
"""
)

# What a secret code proves or opens.
CODE_QUALIFIERS: Final = _words(
    """
recovery backup scratch rescue emergency restore auth authentication authenticator authorization
verification verify epp transfer activation confirmation login signin unlock access security mfa tfa factor fa sms
reset door gate safe alarm lock card device pairing otp totp secret entry pass pin master recuperation
recuperacion recuperacao recupero securite seguridad seguranca sicurezza acces acceso acesso accesso
verificacion verificacao verifica verificare autenticacion autenticacao autenticazione authentification
activacion ativacao attivazione confirmacion confirmacao conferma secours respaldo emergencia emergenza
dostepu weryfikacyjny weryfikacji odzyskiwania zapasowe zapasowy bezpieczenstwa potwierdzenia aktywacyjny
jednorazowy dogrulama guvenlik kurtarma erisim onay giris yedek aktivasyon подтверждения доступа доступу
восстановления безопасности резервный резервные одноразовый проверочный проверки активации секретный
авторизации overovaci zalozni bezpecnostni ellenorzo biztonsagi verifikasi keamanan pemulihan bekraftelse
sakerhet garage entrance alarme
"""
)

# Of these, the ones English knows: "code access" is none.
ENGLISH_CODE_QUALIFIERS: Final = _words(
    """
recovery backup scratch rescue emergency restore auth authentication authenticator authorization
verification verify epp transfer activation confirmation login signin unlock access security mfa tfa factor fa sms
reset door gate safe alarm lock card device pairing otp totp entry pass master garage entrance
"""
)

# Small words, skipped in the same way: `clé d'accès`, `chave de acesso`.
CONNECTORS: Final = _words("""
d da de del der des di do du el for l la le of para per the til van von для
""")

# Last word of a name that tells something about a secret: `token count`, `password policy`.
ABOUT_LAST: Final = _words(
    """
count counts counter length len size limit quota budget policy policies type types kind enabled enable
disabled disable required require requirement requirements mandatory optional expired expires expiry
expiration expire exp ttl age lifetime lifespan duration period interval timeout at on date time timestamp
datetime since until days hours minutes seconds sec secs ms updated created changed modified rotated
revoked used usage uses last status state strength score complexity min max minimum maximum version format
algorithm algo alg attempts attempt tries retries failures failed rotation resets name names label title
description desc comment id ids uuid guid arn uri url urls endpoint endpoints path paths file filename dir
directory folder scope scopes issuer audience provider providers manager method methods mode field column
prompt placeholder input button message error errors rule rules regex validator validation valid invalid
verified confirmed consent banner notice domain samesite secure httponly set present exists existing
configured supported allowed allow allowlist bucket price cost balance symbol supply index position per
rate remaining left available sum average avg level layer app device backend source server owner user
username login email fingerprint thumbprint prefix suffix four last4 color colour icon visible visibility
hidden shown protected protection locked reset_required needed active inactive generator generated hasher
hashing encoder parser tokenizer history_size event events log logs hint_enabled settings page form screen
tab section link route controller service handler middleware class table model region zone channel
delivery question questions change changes ip by refresh refreshed политика политики support rotation_days
cycle window anzahl lange typ aktiv aktiviert ablauf
datum richtlinie nombre longueur expire_le longitud cantidad tipo fecha authentication auth total in out
"""
)

# First word of a name that asks or limits: `has password`, `max tokens`.
ABOUT_FIRST: Final = _words("""
has have is are was requires require required needs need max min maximum minimum num number total show
hide allow allows allowed enable enabled disable disabled force forgot must can should count use uses support
supports accept accepts expect min_length nb anzahl ist hat
""")

# Cancel a hit they cover.
HARMLESS_PHRASES: Final = _phrases("""
prompt token|next token|page token|skip token|sync token|change token|continuation token|credential access
completion token|total token|max token|min token|input token|output token|cached token
reasoning token|token used|context token|token per|token bucket|token ring|token sale|token economy
non fungible token|token symbol|token holder|cookie consent|cookie policy|cookie banner|cookie notice
cookie law|accept cookie|cookie jar|fortune cookie|cookie preference|cookie category|cookie setting
password less|passwordless|password manager|password policy|password strength|password complexity
password reset required|secret santa|top secret level|open secret|parola chiave|palabra clave
palabra claves|palavra chave|mot cle|clave primaria|clave foranea|clave publica|clave producto
clave de producto|clave licencia|clave de licencia|clave unica|clave valor|public key|primary key
foreign key|sort key|partition key|unique key|cache key|composite key|index key|translation key|lookup key
hash key|range key|row key|group key|routing key|shard key|natural key|surrogate key|candidate key
config key|setting key|metric key|object key|dedup key|public api key|publishable key|public token key
pass through|pass rate|pass count|pass fail|cookie cutter|pin code area|postal pin code|address pin code
shipping pin code|billing pin code|zip pin code|site key|authorization type|authorization status
пин код региона|пин код области|пин код города|пин код адреса|pin region|pin code region|faq question answer|
quiz question answer|survey question answer|exam question answer|poll question answer|public key pem
otp method|totp method|token standard|enable auth|ssn last|salt lake|salt water|sea salt
""")

# Hold a secret word by chance.
HARMLESS_WORDS: Final = _words("""
ambassador autoclave asphalt conclave enclave laclave assassin authentic authenticated author authored
authoring authorities authority
authorize authorized authors basalt botpress bypass classification coauthor cobalt compass compassion
cookbook cookiecutter dependency desktop donkey encompass hockey hotpink jockey keyboard keynote keypad
keyword keywords laptop mapping monkey opinion otpauthenabled overpass pagination parole parolee passable
passage passat passback passbook passed passenger passes passing passion passive passport passthrough
passthru passwordless pineapple ping pink pinned pinning pinpoint pinterest potpourri saltwater
secretariat secretary secretion shipping somersault spin spinner spinning surpass token2022 tokenization
tokenize tokenized tokenizer tokenizers trespass turkey typing underpass
""")

# Beginnings of words that hold a secret word by chance, in languages that inflect: `токенизация`, `парольная
# политика`.
HARMLESS_STEMS: Final = _words("""
токениз tokeniz tokenis
""")

# Stand before or after a secret word in a name without separators: `dbpassword`.
COMPANIONS: Final = _words("""
db database data mysql mariadb postgres postgresql pg mongo mongodb redis sql ftp sftp smtp imap pop mail
email ldap rcon user usr username admin adm root my your new old current cur confirm confirmation repeat
retype temp tmp default master main server client api app application service system sys login logon
signin account acc auth oauth access refresh reset remember session sess bot web http https proxy socks
vpn wifi wlan router node panel host ssh ssl tls private priv public secret encryption encrypted enc
hashed hash plain raw card credit customer member staff super sudo bind kunden benutzer nutzer datenbank
neues altes aktuelles admins usuario utilisateur utente gebruiker senha nova novo minha mi nueva nuevo
actual id ids code key value file token verify verification security device push csrf xsrf github gitlab
slack discord telegram stripe paypal aws azure google webhook url uri string connection recovery backup
seed phrase two factor mfa totp store trust count length policy type enabled expires expiry name manager
size limit strength invite activation personal guest
""")

# Long and unambiguous, so secret inside any word: `Datenbankpasswort`, `пароли`.
STRONG: Final = _words(
    """
password passwort passwoert passwd passphras passcode kennwort kennwoert motdepasse wachtwoord contrasen
contrasin losenord losningsord adgangskode salasana jelszo lozink zapork slaptazod sifre haslo hasel
parool лозинк парол пароль секретн токен credential credenzial credencia apikey privatekey secretkey
accesskey encryptionkey signingkey accesstoken refreshtoken authtoken zugangsdaten zugangscode
zugangsschlus zugriffsschlus apischlus geheimschlus privatschlus zugangsschlues verschlusselungsschlus
geheimnis geheimwort toegangssleutel apisleutel beveiligingscode sessionid connectionstring recoverycode
backupcode sicherungscode wiederherstellungs webhookurl databaseurl katasandi matkhau sessiontoken
lykilord κωδικ συνθηματικ zugriffstoken toegangstoken sicherheitsantwort beveiligingsantwoord prufnummer
prufziffer pruefnummer sicherheitscode verifizierungscode bestatigungscode aktivierungscode freischaltcode
herstelcode verificatiecode bevestigingscode activeringscode sakerhetskod sikkerhedskode sikkerhetskode
verifieringskod aterstallningskod einmalcode versleutelingssleutel encryptiesleutel
wiederherstellungsschlus zugangstoken pristupoveheslo kartennummer kaartnummer zugriffscode
"""
)

# Scripts without word borders: secret anywhere in the name, spaces left out.
SUBSTRINGS: Final = _phrases(
    """
パスワード|パスフレーズ|パスコード|暗証番号|暗証|シークレット|トークン|秘密鍵|秘密の|秘密情報|認証コード|認証情報|資格情報|アクセスキー|APIキー|暗号鍵|暗号化キー|合言葉|クッキー|密码|密碼
口令|令牌|密钥|密鑰|秘钥|秘鑰|私钥|私鑰|金鑰|凭证|凭据|憑證|验证码|驗證碼|机密|机密信息|访问码|通行码|通行碼|助记词|动态码|安全码|비밀번호|암호|비번|패스워드|토큰|시크릿|비밀키|개인키
인증코드|인증번호|접근키|액세스키|API키|كلمةالمرور|كلمةالسر|رمزالدخول|الرقمالسري|كلمهالمرور|گذرواژه|رمزعبور|סיסמה|סיסמא
ססמה|पासवर्ड|पासकोड|รหัสผ่าน|พาสเวิร์ด|পাসওয়ার্ড|கடவுச்சொல்|リカバリーコード|バックアップコード|復旧コード|回復コード|セッションID|ワンタイム
確認コード|セキュリティコード|恢复码|恢復碼|备用码|備用碼|会话ID|會話ID|恢复代码|安全代码|激活码|支付密|복구코드|백업코드|보안코드|보안키|암호화키|세션ID|확인코드|일회용|署名鍵|署名キー
共通鍵|復号鍵|签名密|加密码|解密|カード番号|银行卡号|信用卡号|卡号|카드번호|カードナンバー|マスターキー|主密钥|गुप्त|टोकन|कूटशब्द
"""
)

# Last words of members that hold the name of what stands beside them: `{"meta_key": "DB_PASSWORD",
# "meta_value": "…"}`.
NAMING_WORDS: Final = _words(
    """
name key variable header setting option param parameter attribute property var env column field label title path type
"""
)

# The same at the end of a word run together: `configkey`, `fieldname`.
NAMING_ENDS: Final = _words("""
name key field label title variable option setting
""")

# Before `name`, `type` or `key` these speak of something else than the value beside them.
NAMING_OTHERS: Final = _words(
    """
user host file first last full nick display domain company event action class table server node content mime
"""
)

# Last words of members that hold the value in such a pair.
VALUE_WORDS: Final = _words("""
value val content data old new
""")

VALUE_ENDS: Final = _words("""
value val content data
""")

# Names of members that hold the value of any name beside them.
VALUE_NAMES: Final = _words(
    """
value val values old new old_value new_value oldvalue newvalue from to content data default default_value
defaultvalue server_value current previous was became text stringvalue string_value raw before after
"""
)

# Last words of lists of names: the second of two names in one is no value.
LISTING_WORDS: Final = _words(
    """
hidden guarded required changed fillable visible scope permission event tag type dirty ignored excluded included only
except category index role
"""
)

# Under these a bare number may be a card number.
CARD_WORDS: Final = _words(
    """
card cc pan creditcard ccnum cardnumber ccnumber kreditkarte carte tarjeta cartao carta kaart karta
"""
)

# Under these a number that passes as a card number is taken for an id.
ID_WORDS: Final = _words(
    """
id uuid guid order invoice number no nr ref reference sku serial ean gtin upc barcode isbn imei iccid
tracking transaction txn ticket sequence seq version phone iban account timestamp time offset size byte
bytes count snowflake article asset batch lot part po product receipt shipment parcel contract
"""
)

# Values that tell something about a secret and are none.
STATES: Final = _words(
    """
true false null none nil undefined yes no on off changed updated reset expired enabled disabled required
invalid missing empty set unset removed deleted created added rotated revoked ok failed n/a unchanged not
was is has accepted accept declined rejected denied granted allowed refused blocked consented essential necessary
"""
)

# Looked for once more with digits read as letters: `p4ssw0rd`.
LEET_WORDS: Final = _words(
    """
password passwd passphrase passwort secret token credential apikey
"""
)

# All of it, for the digest of a ruleset.
VOCABULARY: Final[dict[str, list[str]]] = {
    "words": WORDS,
    "last_words": LAST_WORDS,
    "trailers": TRAILERS,
    "not_last_after": NOT_LAST_AFTER,
    "whole_names": WHOLE_NAMES,
    "scalar_names": SCALAR_NAMES,
    "phrases": PHRASES,
    "qualifier_stems": QUALIFIER_STEMS,
    "keys": KEYS,
    "codes": CODES,
    "code_qualifiers": CODE_QUALIFIERS,
    "english_code_qualifiers": ENGLISH_CODE_QUALIFIERS,
    "key_qualifiers": KEY_QUALIFIERS,
    "key_environments": KEY_ENVIRONMENTS,
    "connectors": CONNECTORS,
    "about_last": ABOUT_LAST,
    "about_first": ABOUT_FIRST,
    "harmless_phrases": HARMLESS_PHRASES,
    "harmless_words": HARMLESS_WORDS,
    "harmless_stems": HARMLESS_STEMS,
    "companions": COMPANIONS,
    "strong": STRONG,
    "substrings": SUBSTRINGS,
    "naming_words": NAMING_WORDS,
    "naming_ends": NAMING_ENDS,
    "naming_others": NAMING_OTHERS,
    "value_words": VALUE_WORDS,
    "value_ends": VALUE_ENDS,
    "listing_words": LISTING_WORDS,
    "value_names": VALUE_NAMES,
    "card_words": CARD_WORDS,
    "id_words": ID_WORDS,
    "states": STATES,
    "leet_words": LEET_WORDS,
}
