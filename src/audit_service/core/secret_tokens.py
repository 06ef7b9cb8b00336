"""The formats of tokens, keys and password hashes, as their providers document them: plain data, RE2 patterns.

All of them become one alternation without groups, matched on bytes; so no pattern may capture. A pattern begins with
a word border only where its prefix can occur by chance: a token glued to a word is still a token. Lengths are lower
bounds where a provider may lengthen them. Changing one changes the digest of every ruleset.
"""

from typing import Final

__all__ = ["INFIX_PATTERNS", "TOKEN_PATTERNS"]

TOKEN_PATTERNS: Final[dict[str, tuple[str, ...]]] = {
    "private key": (
        (
            r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----(?s:.*?)(?:-----END [A-Z0-9 ]"
            r"*PRIVATE KEY(?: BLOCK)?-----|\z)"
        ),
    ),
    "PuTTY key": (r"Private-Lines: [0-9]+\s(?s:.*?)(?:Private-MAC: [0-9a-f]+|\z)",),
    "OpenSSH key body": (r"b3BlbnNzaC1rZXktdjE[A-Za-z0-9+/=\s]*",),
    "age": (r"AGE-SECRET-KEY-1[0-9A-Za-z]{40,}",),
    "JWT": (r"eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*(?:\.[\w-]+){0,2}",),
    "tunnel token": (r"eyJhIjoi[A-Za-z0-9+/]{60,}={0,2}",),
    "otpauth": (r"otpauth(?:-migration)?://[^\s\"'<>]+",),
    "our keys": (r"\bau[dv][a-z]?_[0-9A-Za-z][0-9A-Za-z_.\-]{38,}",),
    "GitHub": (
        r"gh[pousr]_[A-Za-z0-9]{30,}",
        r"github_pat_\w{22,}",
    ),
    "GitLab": (
        r"gl(?:pat|dt|ptt|rt|rtr|cbt|ft|soat|ffct|imt|agent|oas|wt)-[\w.\-]{20,}",
        r"GR1348941[\w-]{20,}",
    ),
    "AWS": (
        r"\b(?:AKIA|ASIA|ABIA|ACCA|A3T[A-Z0-9])[A-Z0-9]{16}\b",
        r"(?:FwoGZXIvYXdz|IQoJb3JpZ2lu)[A-Za-z0-9+/=]{40,}",
        r"ABSK[A-Za-z0-9+/=]{100,}",
        r"amzn\.mws\.[0-9a-f-]{36}",
    ),
    "Google": (
        r"AIza[\w-]{35}",
        r"ya29\.[\w.\-]{20,}",
        r"GOCSPX-[\w-]{20,}",
        r"\b1//0[\w-]{30,}",
        r"\bAQ\.[\w-]{40,}",
        r"AAAA[\w-]{7}:[\w-]{120,}",
    ),
    "Stripe": (
        r"\b[sr]k_(?:live|test|prod|org)_\w{10,}",
        r"whsec_[A-Za-z0-9+/=]{20,}",
        r"\b(?:pi|seti|cs|src|pm)_\w{8,}_secret_\w{10,}",
    ),
    "Slack": (
        r"xox[a-z]-[\w.%-]{10,}",
        r"xoxe\.xox[a-z]-[\w-]{10,}",
        r"xapp-[\w-]{20,}",
        r"xwfp-[\w-]{20,}",
    ),
    "chat webhooks": (
        r"hooks\.slack\.com/(?:services|workflows|triggers)/[\w/+-]{20,}",
        r"(?:discord|discordapp)\.com/api/(?:v[0-9]+/)?webhooks/[0-9]+/[\w-]{30,}",
        r"webhook\.office\.com/webhookb2/[^\s\"'<>]+",
        r"hooks\.zapier\.com/hooks/catch/[\w/]+",
        r"/api/webhooks/[0-9]{15,}/[\w-]{40,}",
    ),
    "Discord": (
        r"\b[MNO][A-Za-z0-9_-]{22,29}\.[\w-]{6,7}\.[\w-]{27,42}",
        r"\bmfa\.[\w-]{60,}",
    ),
    "Telegram": (
        r"(?:\b|bot)[0-9]{6,12}:[A-Za-z0-9_-]{35}\b",
        r"(?:\b|bot)[0-9]{6,12}:AA[\w-]{32,36}",
    ),
    "mail services": (
        r"\bSG\.[\w-]{16,32}\.[\w-]{16,64}",
        r"\bkey-[0-9a-zA-Z]{32}\b",
        r"\b[0-9a-f]{32}-[0-9a-f]{8}-[0-9a-f]{8}\b",
        r"\b[0-9a-f]{32}-us[0-9]{1,2}\b",
        r"x(?:keysib|smtpsib)-[0-9a-f]{64}-\w{16}",
        r"\bre_[A-Za-z0-9]{6,}_[A-Za-z0-9]{20,}",
        r"\bmd-[A-Za-z0-9_]{22}\b",
        r"\bmlsn\.[0-9a-f]{60,}",
    ),
    "Twilio": (r"\bSK[0-9a-f]{32}\b",),
    "package registries": (
        r"\bnpm_[A-Za-z0-9]{30,}",
        r"pypi-[\w-]{40,}",
        r"rubygems_[0-9a-f]{40,}",
        r"\bcio[A-Za-z0-9]{32}\b",
        r"\boy2[a-z0-9]{43}\b",
        r"dckr_(?:pat|oat)_[\w-]{20,}",
        r"CLOJARS_[a-z0-9]{60}",
        r"packagist_\w{30,}",
        r"AKCp[A-Za-z0-9]{60,}",
    ),
    "DigitalOcean": (
        r"\bdo[opr]_v1_[0-9a-f]{60,}",
        r"\bDO00[A-Z0-9]{16}\b",
    ),
    "Cloudflare": (
        r"\bcf(?:k|ut|at)_[\w-]{40,}",
        r"\bv1\.0-[0-9a-f]{24}-[0-9a-f]{100,}",
    ),
    "OpenAI and kin": (
        r"\bsk-(?:proj|svcacct|admin|None|or|lf|ant)-[\w-]{16,}",
        r"\bsk-[A-Za-z0-9]{20,}\b",
        r"\bhf_[A-Za-z0-9]{30,}",
        r"\bapi_org_[A-Za-z0-9]{30,}",
        r"\bgsk_[A-Za-z0-9]{40,}",
        r"\bxai-[A-Za-z0-9]{40,}",
        r"\bpplx-[A-Za-z0-9]{40,}",
        r"\br8_[A-Za-z0-9]{30,}",
        r"\bnvapi-[\w-]{40,}",
        r"lsv2_(?:pt|sk)_\w{30,}",
        r"\bpcsk_\w{30,}",
        r"\btvly-[\w-]{20,}",
        r"\bcsk-[a-z0-9]{40,}",
        r"\bfw_[A-Za-z0-9]{20,}",
        r"\btgp_v1_[\w-]{40,}",
        r"\bsk_[0-9a-f]{48}\b",
    ),
    "Shopify": (r"shp(?:at|ca|pa|ss|ua|tka|rt)_[0-9a-zA-Z]{30,}",),
    "Square and Meta": (
        r"\bsq0(?:atp|csp|idp)-[\w-]{22,}",
        r"\bEAAA[A-Za-z0-9_-]{60}\b",
        r"\bEAA[A-Za-z0-9]{80,}",
    ),
    "payment services": (
        r"access_token\$(?:production|sandbox)\$\w{16}\$[0-9a-f]{32}",
        r"\brzp_(?:live|test)_\w{14,}",
        r"FLWSECK(?:_TEST)?-[\w-]{20,}",
        r"\b(?:live|test)_[A-Za-z0-9]{30,}\b",
        r"access-(?:sandbox|development|production)-[0-9a-f-]{36}",
        r"pdl_(?:live|sdbx)_apikey_\w{20,}",
        r"\bAQE[\w+/=.\-]{60,}",
        r"shippo_(?:live|test)_[0-9a-f]{40}",
        r"\bEZ[AT]K[A-Za-z0-9]{54}",
    ),
    "secret stores": (
        r"\bdp\.(?:pt|st|ct|sa|said|scim|audit)\.[\w.\-]{30,}",
        r"\bhv[sbr]\.[\w-]{20,}",
        r"\bs\.[A-Za-z0-9]{24}\b",
        r"\bpul-[0-9a-f]{40}\b",
        r"\bops_eyJ[\w-]{40,}",
        r"\bst\.[0-9a-f-]{20,}\.[0-9a-f]{20,}\.[0-9a-f]{20,}",
    ),
    "game panels": (
        r"\bptl[acr]_[A-Za-z0-9]{16,}",
        r"\b(?:pacc|papp|peli|plcn)_[A-Za-z0-9]{30,}",
    ),
    "Laravel": (
        r"\b[0-9]{1,10}\|[A-Za-z0-9]{40,}",
        r"\bbase64:[A-Za-z0-9+/]{43}=",
    ),
    "monitoring": (
        r"\bgl(?:c|sa)_[A-Za-z0-9+/=_]{30,}",
        r"\beyJrIjoi[A-Za-z0-9+/=]{40,}",
        r"\bNR(?:AK|JS|II|RA)-[\w-]{20,}",
        r"sntr(?:ys|yu)_[\w+/=.-]{40,}",
        r"dt0[a-z][0-9]{2}\.[A-Z0-9]{24}\.[A-Z0-9]{64}",
        r"\bhc[abcd]i[ck]_\w{50,}",
        r"\bphx_\w{40,}",
    ),
    "work tools": (
        r"\blin_api_[A-Za-z0-9]{30,}",
        r"\b(?:secret_[A-Za-z0-9]{43}|ntn_[A-Za-z0-9]{40,})\b",
        r"\bpat[A-Za-z0-9]{14}\.[0-9a-f]{64}",
        r"\bAT(?:ATT3|CTT3|BB)[\w=.\-]{28,}",
        r"\bfig[du]_[\w-]{36,}",
        r"\bPMAK-[0-9a-f]{24}-[0-9a-f]{34}",
        r"\bCFPAT-[\w-]{40,}",
        r"\bpat-[a-z]{2}[0-9]-[0-9a-f-]{36}",
        r"\b00D[A-Za-z0-9]{12,15}![\w.]{60,}",
        r"\b[0-9]/[0-9]{16}:[0-9a-f]{32}",
        r"\bsl\.[\w-]{100,}",
        r"\btfp_[\w-]{40,}",
        r"\bwaka_[0-9a-f-]{36}",
        r"\brdme_\w{40,}",
    ),
    "clouds": (
        r"\bdapi[0-9a-f]{32}",
        r"\bsbp_[0-9a-f]{40}",
        r"\bsb_secret_[\w-]{20,}",
        r"pscale_(?:tkn|pw|oauth)_[\w.-]{30,}",
        r"\bnapi_\w{40,}",
        r"\bfo1_[\w-]{40,}",
        r"\bfm[12][ar]?_[\w+/=,-]{60,}",
        r"\bHRKU-[\w-]{30,}",
        r"\bnfp_[\w-]{30,}",
        r"\bvc[piark]_\w{40,}",
        r"\brnd_\w{28,}",
        r"\bSCW[A-Z0-9]{17}\b",
        r"tskey-[a-z]+-[\w-]{16,}",
        r"\bLTAI[A-Za-z0-9]{12,24}\b",
        r"\bAKID[A-Za-z0-9]{32}\b",
        r"\by[0-3]_[\w-]{50,}",
        r"\bAQVN[\w-]{35,}",
        r"\bt1\.[\w-]{40,}\.[\w-]{60,}",
    ),
    "build services": (
        r"SWMTKN-1-[\w-]{40,}",
        r"CCIP(?:AT|RJ)_\w{20,}_[0-9a-f]{20,}",
        r"\bbk[ua]a?_[0-9a-f]{40}",
        r"\bsq[pua]_[0-9a-f]{40}",
        r"\bpnu_\w{36}",
        r"\btoken-[a-z0-9]{5}:[a-z0-9]{50,}",
    ),
    "maps and bearer keys": (
        r"\bsk\.eyJ[\w-]{20,}\.[\w-]{20,}",
        r"\bA{20,22}\w+%[23][BDF][\w%]{40,}",
    ),
    "wallets": (
        r"\bxprv[1-9A-HJ-NP-Za-km-z]{100,}",
        r"\bnsec1[a-z0-9]{58}",
        r"\b[5KL][1-9A-HJ-NP-Za-km-z]{50,51}\b",
    ),
    "password hashes": (
        r"\$2[abxy]?\$[0-9]{2}\$[./A-Za-z0-9]{53}",
        r"\$argon2(?:id|i|d)\$[^\s\"'<>]{20,}",
        r"\$(?:1|5|6|7|y|gy|apr1|md5|sha1|scrypt|bcrypt-sha256|pbkdf2[\w-]*)\$[^\s\"'<>:]{8,}",
        r"\$[PH]\$[./A-Za-z0-9]{31}",
        r"\{(?:S?SHA(?:256|384|512)?|S?MD5|CRYPT|ARGON2|PBKDF2[\w-]*)\}[A-Za-z0-9+/=$.,*]{16,}",
        r"\b(?:pbkdf2_sha(?:1|256|512)|bcrypt_sha256|bcrypt|argon2|scrypt)\$[^\s\"'<>]{20,}",
        r"\bpbkdf2:sha(?:1|256|512)(?::[0-9]+)?\$[^\s\"'<>]{20,}",
        r"\bscrypt:[0-9]+:[0-9]+:[0-9]+\$[^\s\"'<>]{20,}",
        r"SCRAM-SHA-(?:1|256)\$[^\s\"'<>]{20,}",
        r"\*[0-9A-F]{40}\b",
        r"\$A\$005\$[^\s\"'<>]{20,}",
    ),
}

# Known by what stands in their middle: Azure client secrets, DevOps tokens and storage keys, Terraform. A pattern that
# began with a long run of any letters would start anew at every letter, and its automaton would never stop growing.
INFIX_PATTERNS: Final = (
    r"[0-9]Q~[\w.~-]{31,34}",
    r"JQQJ99[A-Za-z0-9]{18}AZDO[A-Za-z0-9]{4}",
    r"\+A(?:St|Rm|Cb|EB)[A-Za-z0-9+/]{4,5}={1,2}",
    r"\.atlasv1\.[\w-]{50,}",
)
