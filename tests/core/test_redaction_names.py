"""Which names are secret: tables, and the rates on names invented after the rules were written.

The HELD_OUT tables were drawn one after the other, each after the rules had been improved on the one before. At first
sight the rules found 339 of 340, 268 of 310, 212 of 220, 130 of 150 and 102 of 110: the second and the later ones aim
at rare protocols and at secrets said without a loan word in ten languages. They are regression tables now.
"""

import pytest

from audit_service.core.secret_names import SecretNames, fold, split_words
from audit_service.core.secret_words import VOCABULARY

RULES = SecretNames()


def _words(text: str) -> list[str]:
    return text.split()


HELD_OUT_1 = _words("""
rootPassword AdminPasswd ftp_pwd smtpPass imap_password mailbox-password panel.password wp_admin_pass
sql_password PGPASSWORD MYSQL_ROOT_PASSWORD redis_password rabbitmqPassword bindPassword ldap_bind_pw
keystorePassword truststore_password privateKeyPassphrase ssh_passphrase wifiPassphrase wpa_psk
preSharedKey ipsec_psk radius_secret shared_secret clientSecret oauth_client_secret consumerSecret
app_secret appKey APP_KEY jwtSecret jwt_signing_key session_secret cookie_secret csrf_token xsrfToken
authenticity_token remember_token refreshToken idToken accessToken oauth_token bearerToken bearer
api_token apiToken x-auth-token X-Api-Key apikey api_keys private_key privKey sshPrivateKey
rsa_private_key tls_private_key ssl_key deploy_key gpg_private_key pgpPrivateKey signingSecret
webhook_secret webhookUrl slack_webhook_url discordWebhook stripe_secret_key stripeSecret
stripe_webhook_secret paypal_client_secret braintree_private_key square_access_token aws_secret_access_key
AWS_SESSION_TOKEN aws_access_key s3_secret_key gcp_service_account_key azure_storage_key azureClientSecret
account_key cloudflare_api_token cf_api_key do_api_token hetzner_token linode_token vultr_api_key
github_token gh_token gitlabToken npm_token pypi_token docker_password telegram_bot_token botToken
slack_bot_token sendgrid_api_key mailgun_api_key twilio_auth_token openai_api_key anthropic_api_key
hf_token recaptcha_secret totpSecret otp_secret two_factor_secret twoFactorRecoveryCodes backupCodes
recovery-codes mfa_secret google2fa_secret otp sms_code verification_code reset_token passwordResetToken
activation_token invite_token email_verification_token magicLink unlock_token confirmation_token
device_token pin cardPin sim_pin puk cvv cvc2 card_cvv cardNumber credit_card_number security_code
security_answer secret_answer secretQuestionAnswer mothers_maiden_name seed_phrase mnemonic
walletPrivateKey recoveryPhrase encryption_key masterKey database_url DB_URL connectionString mongo_uri
redis_url dsn sentry_dsn jdbcUrl amqp_url DATABASE_PASSWORD rcon_password rconPassword steam_api_key
daemon_token node_token wings_token sftp_password panelApiKey license_server_secret whmcs_api_secret
password_hash passwordHash hashed_password pwhash password_digest encrypted_password crypted_password salt
password_salt pepper new_password old_password current_password password_confirmation passwordConfirm
confirmPassword repeat_password password2 temp_password default_password user_secret_details
credentials_json service_credentials creds dbcreds loginCredentials auth_token authToken authorization
proxy_authorization sessionid sessionId PHPSESSID set-cookie cookie session_token sid_cookie
snmp_community kubeconfig vault_token unseal_key root_token consul_token nomad_secret tailscale_auth_key
wireguard_private_key vpn_password pppoe_password tsig_key passwort neues_passwort benutzerPasswort
kennwort Zugangsdaten geheimnis api_schluessel privater_schluessel geheimer_schlüssel sicherheitscode
mot_de_passe motDePasse mdp nouveau_mot_de_passe clé_api cle_secrete jeton_acces code_secret
phrase_de_passe clé_privée contraseña contrasena nueva_contraseña clave_secreta clave_api clave_privada
secreto credenciales token_de_acceso código_de_seguridad senha nova_senha senha_hash chave_api
chave_secreta chave_privada segredo credenciais token_acesso código_de_acesso parola_d_ordine chiave_api
chiave_privata chiave_segreta segreto credenziali codice_di_sicurezza gettone_accesso passwordUtente
codice_segreto wachtwoord nieuw_wachtwoord geheime_sleutel api_sleutel toegangssleutel toegangscode
privésleutel wachtwoord_hash inloggegevens geheim hasło nowe_hasło haslo_uzytkownika klucz_api
klucz_prywatny tajny_klucz kod_dostępu token_dostępu sekret hasłoBazyDanych пароль новый_пароль
пароль_администратора секретный_ключ ключ_api токен_доступа секрет приватный_ключ код_доступа апи_ключ
şifre yeni_şifre parola gizli_anahtar api_anahtarı kullanıcı_şifresi erişim_anahtarı şifreHash
erisim_jetonu gizliAnahtar パスワード 新しいパスワード 秘密鍵 アクセストークン APIキー
暗証番号 認証コード ユーザーパスワード シークレットキー 管理者パスワード 密码 新密码
密钥 访问令牌 私钥 数据库密码 api密钥 验证码 用户密码 登录密码 heslo nové_heslo tajný_klíč jelszó lösenord adgangskode passord
salasana parolă lozinka 비밀번호 كلمة_المرور סיסמה mật_khẩu kata_sandi รหัสผ่าน κωδικός_πρόσβασης пароля
şifresi parool
""")

HELD_OUT_2 = _words("""
adminpw masterpw svc_pw domainAdminPassword ipmiPassword idrac_password ilo_pass bmc_pass bmcPwd
snmpv3_auth_pass snmp_priv_key enableSecret vtyPassword console_password luks_passphrase zfs_key
disk_encryption_key backup_encryption_key restic_password borg_passphrase letsencrypt_private_key
acme_account_key dkim_private_key dnssec_private_key rndc_key ddns_secret route53_secret
cloudflareGlobalApiKey namecheapApiKey porkbun_secret_api_key mailcowApiKey directadmin_login_key
cpanel_api_token pleskSecretKey virtualmin_pass solusvm_key proxmox_token_secret esxi_password
vcenter_pass kubelet_token join_token swarm_join_token k3s_token etcd_root_password minio_secret_key
minioRootPassword grafana_admin_password influx_token elastic_password kibana_password zabbix_token
prometheus_bearer pagerduty_integration_key opsgenie_api_key newrelic_license_secret datadog_app_key
sentry_auth_token rollbar_token bugsnag_api_key statuspage_token fcm_server_key apns_auth_key push_token
vapid_private_key pusher_app_secret ably_api_key twilioAuthToken nexmo_secret vonage_api_secret
plivo_auth_token mollie_api_key adyen_api_key paypalSecret klarna_password razorpay_key_secret
paystack_secret_key stripeRestrictedKey coinbase_secret kraken_private_key binance_api_secret
wallet_mnemonic walletSeed privateSpendKey xprv master_seed hd_seed keystore_json decryption_key
symmetric_key hmac_key saml_private_key oidc_client_secret keycloak_admin_password ldapBindPassword
adServicePassword kerberos_keytab ntlm_hash scim_token okta_api_token auth0_client_secret session_cookie
laravel_session_token connect.sid rememberMeToken csrfToken stateToken deviceCode user_otp loginOtp
one_time_password emailOtp smsVerificationCode pairing_code door_access_code gate_code alarm_code
safe_code voicemail_pin atm_pin account_pin security-answer-1 hint_answer_secret recovery_key backupKey
rescue_code emergencyCodes scratchCodes account_recovery_codes tfa_secret twofa_secret initialPassword
generated_password auto_generated_pass userPassphrase guestWifiPassword router_admin_password
camera_password rtsp_password voip_secret sip_secret asterisk_secret sipPassword trunk_password
mqtt_password xmpp_password irc_password nickserv_pass teamspeak_admin_token discord_client_secret
twitch_stream_key plainPassword plain_text_password password_plain pw_clear cleartext_password passwd_hash
shadow_password bcrypt_password argon2_hash_password sha512_password dbPass db.pass db-pass DBPASS DbPwd
dbpwd userpwd usrpwd mailpass ftppassword api_secret apiSecretKey api-secret APISECRET secretAccessKey
awsSecretKey gcpCredentialsJson googleApplicationCredentials azureSasToken blob_sas_token
tls_key_passphrase pfx_password p12_password jks_password certificate_password key_password keyPassphrase
ca_private_key serverKeyPem ssl_certificate_key Administratorpasswort Datenbankkennwort WLAN-Passwort
Wiederherstellungsschlüssel Zugriffsschlüssel Zugriffstoken Sicherheitsantwort Kartenprüfnummer PIN-Nummer
Einmalpasswort motdepasse_admin mot_de_passe_bdd mdp_ftp clef_api clé_de_chiffrement jeton_api
secret_client code_de_vérification réponse_secrète identifiants_connexion contraseña_actual contraseñaHash
clave_acceso clave_cifrado frase_secreta palabra_secreta token_acceso código_verificación pin_tarjeta
respuesta_secreta senha_atual senhaBanco chave_de_acesso chave_criptografia palavra_passe
código_verificação resposta_secreta token_api senha_ftp senhaAdmin password_attuale parola_chiave_segreta
chiave_di_accesso chiave_crittografia codice_verifica token_accesso risposta_segreta pin_carta
frase_segreta password_ftp beheerderswachtwoord databasewachtwoord wachtzin versleutelingssleutel
toegangstoken herstelcode beveiligingsantwoord pincode_kaart apisleutel geheime_vraag_antwoord
hasło_administratora haslo_bazy klucz_szyfrowania klucz_dostępu tajne_hasło kod_weryfikacyjny hasloFtp
poufny_klucz kody_odzyskiwania пароль_базы пароль_фтп токен_бота секретный_код ключ_шифрования
закрытый_ключ одноразовый_пароль код_подтверждения резервный_код парольПользователя yönetici_şifresi
veritabanı_parolası gizli_kelime şifreleme_anahtarı doğrulama_kodu güvenlik_kodu kurtarma_kodu
erişim_belirteci özel_anahtar yeniSifre データベースパスワード APIトークン
秘密の質問の答え 暗号化キー リカバリーコード ワンタイムパスワード セッションID
旧パスワード 認証トークン クライアントシークレット 管理员密码 支付密码 访问密钥 刷新令牌 客户端密钥
短信验证码 恢复码 会话令牌 加密密钥 安全码 데이터베이스_비밀번호 관리자암호 액세스_토큰
복구_코드 пароль_адміністратора ключ_доступу heslo_databáze jelszó_hash adminlösenord databasadgangskode
""")

HELD_OUT_3 = _words("""
svcAccountPwd SuperUserPassword wpSalt wp_auth_key phpmyadmin_blowfish_secret nextcloud_admin_pass
roundcube_des_key gitea_secret_key internal_token lfs_jwt_secret matrix_registration_shared_secret
turn_secret coturn_static_auth_secret jitsi_app_secret bbb_secret zoom_jwt_token teams_client_secret
webexBotToken mattermost_webhook_url rocketchat_password plex_token jellyfin_api_key sonarr_apikey
unifi_password mikrotik_api_password fritzbox_password synology_password truenas_api_key
opnsense_api_secret pfsense_shared_key db1_password DB_PASSWORD_PROD replicationPassword repl_user_pass
pgbouncer_auth_password mongoRootPwd cassandra_password neo4j_auth_password kafka_sasl_password
zookeeper_digest_secret aws.secret.key AccessKeySecret sts_session_token ecrToken gkeToken aksPassword
ociPrivateKey scalewaySecretKey upcloud_password contabo_client_secret ovh_application_secret
ovh_consumer_key gandi_api_key dnsimple_token ns1_apikey bunny_access_key fastly_api_token
akamai_client_secret keycdn_api_key backblaze_application_key tokens refresh_tokens apiTokens secrets
passwords credentials cookies authCookies jwtToken access-jwt userToken user_api_key x_csrf_token
X-Amz-Security-Token Proxy-Authorization WWW-Authorization-Token httpBasicAuth basicAuthPassword
digestAuthSecret hawk_secret mysecret my_pass myPassphrase thePassword tmp_pw sudoPassword become_pass
ansible_become_password vault_pass ansible_ssh_pass signing_key signature_secret hmacSecret
webhookSigningKey callback_secret notify_secret ipn_secret gateway_secret merchant_key_secret
merchantPassword bank_pin card_security_code card-cvc debitCardNumber ccNumber paypass_pin
online_banking_password tan_pin transactionPin walletPin root_pass_confirmation passwordAgain
retypePassword old_pw new_pw prev_password lastPassword pass1 password_3 passwd2 Passwort_neu
KundenPasswort AdminKennwort geheimesToken ApiSchluessel SSH-Schlüssel Verschlüsselungsschlüssel
WLANSchluessel Zugangscode Bestätigungscode ancien_mot_de_passe confirmation_mot_de_passe MotDePasseAdmin
clé_ssh clé_secrète_api code_de_récupération code_de_secours jeton secretClient cléPrivée
contraseñaAnterior confirmar_contraseña claveSecreta clave_ssh clave_del_servidor_secreta token_secreto
código_de_recuperación credencial codigo_secreto contraseña_wifi senhaAntiga confirmar_senha chave_ssh
chaveSecreta código_de_recuperação senha_wifi segredo_cliente token_de_acesso credencial_banco
senha_do_usuario nuova_password password_utente chiave_ssh chiave_di_cifratura codice_di_recupero
segreto_client credenziali_ftp parola_segreta codiceSegreto token_di_accesso nieuwWachtwoord
wachtwoordHerhalen privesleutel ssh_sleutel encryptiesleutel verificatiecode geheimeSleutel toegangs_code
wachtwoordDatabase api_geheim staryPassword noweHaslo potwierdz_haslo klucz_ssh klucz_tajny
kod_bezpieczeństwa kod_odzyskiwania hasłoWifi sekretny_klucz token_odświeżania старый_пароль
подтверждение_пароля ключ_ssh секретныйКлюч код_безопасности резервные_коды пароль_wifi токен_обновления
секрет_клиента шифровальный_ключ eskiŞifre şifre_tekrar ssh_anahtarı gizli_anahtarı güvenlikKodu
yedek_kodlar wifi_şifresi yenileme_jetonu istemci_sırrı yönetici_parolası 現在のパスワード パスワード確認 リフレッシュトークン 署名鍵
バックアップコード ssh秘密鍵 旧密码 确认密码 支付密钥 登陆口令
""")

HELD_OUT_4 = _words("""
postfix_sasl_password dovecot_master_pass spamassassin_api_key rspamd_password controller_password
clamav_token fail2ban_secret wordpress_nonce_salt auth_salt secure_auth_key hostbillApiSecret
blesta_api_key clientexec_secret paymenterToken ptero_client_key daemonSecret nodeToken eggSecretValue
SERVER_PASSWORD ADMIN_PASS RCON_PASS serverPassword sv_password joinPassword gslt_token STEAM_ACC_TOKEN
srcds_token cfx_license_token txadmin_pin query_password zohoRefreshToken hubspotAccessToken
salesforce_security_token pipedrive_api_token intercom_secret zendesk_api_token freshdesk_password
jira_api_token confluencePassword trello_token sshPassphrase host_private_key known_secret kmsSecret
transit_key_secret sealed_secret sops_age_key pgp_passphrase veracrypt_password bitlocker_recovery_key
Kontopasswort Nutzerkennwort Tresorcode API-Geheimnis Sitzungstoken Kreditkartennummer ZugangsSchluessel
Lizenzserver_Passwort Wiederherstellungscode MasterPasswort mdp_utilisateur mdpAdmin jeton_de_session
clé_de_signature clef_privee numéro_de_carte code_confidentiel secret_partagé code_de_sécurité
identifiants_de_connexion clave_maestra contraseña_ftp número_de_tarjeta token_de_sesión clave_de_firma
clave_wifi contraseñas_anteriores código_de_acceso secreto_compartido clave_usuario senha_mestra
número_do_cartão token_de_sessão chave_de_assinatura senha_cliente frase_senha segredo_compartilhado
código_de_segurança chave_mestra senhas password_amministratore numero_di_carta token_di_sessione
chiave_di_firma segreto_condiviso codice_pin parolaDOrdine chiave_maestra codice_di_verifica
password_posta hoofdwachtwoord kaartnummer sessietoken ondertekeningssleutel gedeeld_geheim
beveiligingscode wachtwoorden prive_sleutel herstel_code eenmalig_wachtwoord hasło_główne numer_karty
token_sesji klucz_podpisu wspólny_sekret kod_jednorazowy hasła klucz_główny_tajny haslo_poczty kod_pin
мастер_пароль номер_карты токен_сессии ключ_подписи общий_секрет пинкод одноразовый_код пароли мастер_ключ
пароль_почты ana_şifre kart_numarası oturum_jetonu imza_anahtarı paylaşılan_gizli tek_kullanımlık_kod
şifreler ftp_şifresi güvenlik_anahtarı kullanıcı_parolası マスターパスワード
カード番号 セッショントークン ログインパスワード 主密码 银行卡号
签名密钥 一次性密码 登录令牌 共享密钥
""")

HELD_OUT_5 = _words("""
zabbixAdminPassword keepass_key_file_password bitwarden_client_secret onepassword_token duo_secret_key
yubikey_secret radiusSharedSecret tacacs_key vrrp_auth_pass bgp_md5_password ospf_auth_key isakmp_key
ikev2_psk openvpn_static_key vpnPassphrase wgPrivateKey cloudinit_password userdata_password vnc_password
spice_password novnc_token console_token rescue_password reinstall_root_password tempRootPass
initial_root_password customer_password clientPass resellerPassword whm_access_hash billing_api_key
gateway_api_secret stripe_sk paypalPassword authorizenet_transaction_key worldpay_installation_password
2checkout_secret_word moneris_api_token skrill_secret_word payoneer_password loginToken single_use_token
sso_secret sso_token impersonation_token service_token machine_token workload_token agent_token
registration_token deviceSecret iot_connection_string mqttPassword lorawan_app_key zigbee_network_key
hue_username_secret homeassistant_token esp_wifi_pass alarm_pin garage_code encryptedPassword
decryptedSecret passwordCipher secretValue secretString secret_json token_value tokenPlain apiKeyPlaintext
raw_token Passwortbestätigung AltesPasswort FTPPasswort Schlüsselpasswort Zugriffscode mot_de_passe_ftp
confirmation_mdp clé_api_secrète jeton_csrf code_secret_carte contraseña_nueva contraseñaFtp
clave_acceso_api token_api senha_confirmacao senhaNova chave_acesso_api password_nuova chiaveApi
chiave_accesso wachtwoord_bevestiging nieuw_wachtwoord_2 apiSleutel hasło_nowe potwierdzenie_hasla
kluczApi новыйПароль пароль2 api_ключ ключАпи yeniParola eski_şifre apiAnahtarı パスワード再入力 データベースのパスワード
apiキー 密码确认 数据库密钥 新しい暗証番号 비밀번호확인
""")

HARMLESS = _words("""
id name key keys license_key licenseKey licence_key product_key cd_key keyboard author authored_by
author_name authority primary_key foreign_key sort_key partition_key public_key ssh_public_key cache_key
unique_key translation_key key_id key_name keyword keyword_count token_count tokens_used max_tokens
prompt_tokens completion_tokens total_tokens token_type token_expires_at token_name tokenizer token_limit
password_policy password_changed_at has_password password_expires_at password_length
password_reset_required password_strength require_password passwordless password_enabled show_password
otp_enabled two_factor_enabled mfa_required mfa_enabled totp_enabled has_totp otp_method session_timeout
session_lifetime sessions session_count cookie_consent cookie_domain cookie_policy cookies_enabled
secretary secretariat compass passenger bypass passport passthrough passive passed pass_rate boarding_pass
spinning shipping pinned pin_color pinterest pinboard opinion mapping spin shopping_cart postcode zip_code
country_code status_code error_code currency_code promo_code code codec description title email username
user_id server_id node_id ip_address mac_address hostname domain url website callback_url logo_url
created_at updated_at deleted_at expires_at version api_version auth_method auth_type auth_provider
oauth_enabled authenticated authenticator database database_name db_host db_name db_port db_user
connection connection_limit webhook_id webhook_name webhook_events webhook_enabled credit credits
credit_limit balance amount card_brand card_last4 card_expiry account_number iban bic tax_id
invoice_number order_number hash file_hash checksum sha256 md5 etag signature fingerprint certificate
cert_expires_at ssl_enabled ssl_mode tls_version region zone size memory cpu disk backup_limit backup_id
backups recovery_email security_group security_level access_level access_count private is_private public
private_network private_ip privacy secretion turkey monkey hockey jockey donkey kidney salted_caramel
saltwater sea_salt basalt cobalt clavecin passage passenger_count compassion assassin embassy classpath
bass grass glass_type mass tasks token_bucket jetons_count pineapple tan_lines pinpoint keyframes
keyboard_layout monkeypatch accesskey_label hot_keys hotkey shortcut_key_binding key_bindings parcel
parolee parole_officer palabra_clave mots_cles Schlüsselwort sleutelwoord ключевые_слова キーワード 关键词
chiave_primaria clave_primaria login_count last_login failed_logins login_attempts locale timezone
language theme avatar phone address street city state pincode_area key_count key_type key_length key_size
keyring_name keyspace keywords_list keypad_layout api_key_id api_key_name api_key_count access_key_id
access_key_last_used ssh_key_fingerprint public_key_pem host_public_key sshPublicKey deploy_key_id
license_key_type license_keys product_keys serial_key_count token_id token_count_total tokens_remaining
tokens_per_minute token_price tokenization_enabled input_tokens outputTokens cachedTokens password_age
password_min_length password_max_age minPasswordLength passwordExpiryDays passwordLastChanged
password_history_size is_password_set forgot_password_enabled allow_password_login passwordAuthentication
password_login_enabled secret_name secret_version secret_count secretsCount secret_id secret_arn
secret_expires_at pin_enabled pin_required pin_count pinnedAt is_pinned otp_length otp_expiry otp_attempts
mfa_methods mfa_last_used two_factor_type totp_verified_at cookie_name cookie_path cookie_samesite
cookie_lifetime cookieBannerText auth_enabled auth_required auth_attempts auth_source authorization_status
credential_type credential_id credentials_count session_ttl session_started_at session_duration
sessionTimeoutMinutes max_sessions active_sessions session_name webhook_status webhookEvents
webhook_retries callback_method bypass_cache by_pass compass_heading passengers passport_number
passed_tests pass_count passage_id passepartout passerelle mot_cle mots_clés contrasted clave_foranea
clave_publica chave_primaria chave_estrangeira chiave_esterna sleutelveld klucz_glowny primärschlüssel
fremdschlüssel anahtar_kelime внешний_ключ первичный_ключ nyckelord salted_butter basalt_rock saltire
asphalt_type cobalt_blue hsalt pepperoni peppermint spindle pincushion pinnacle opinionated shipping_pin
dnspin author_email coauthors authoring_tool authenticity authorized_users authority_id oauth_scopes
oauth_provider oauth_client_id client_id app_id account_id cred_type discredit credit_card_type
card_holder card_expiry_month cardType scorecard discard_count dashboard_cards card_id cards dsn_count
adsn jwt_issuer jwt_audience jwt_algorithm jwtExpiry hash_algorithm password_hash_algorithm
encryption_enabled encryption_algorithm ssl_cert tls_cert ssl_certificate backup_code_count
recovery_codes_remaining recovery_email_verified recovery_phone verification_status verification_sent_at
email_verified verified_at reset_at reset_count node_name server_name game_name port_range allocations
memory_mb disk_mb cpu_limit swap io_weight oom_disabled egg_id startup_command docker_image invoice_total
currency vat_id coupon_code discount_code referral_code postal_code area_code sort_code swift_code barcode
qr_code source_code exit_code http_code plan_id subscription_id customer_id transaction_id payment_method
payment_intent charge_id refund_reason tax_rate unit_price quantity sku snapshot_name volume_type image_id
flavor instance_type zone_id record_type ttl priority weight nameserver dns_zone mx_host spf_record
dmarc_policy theme_color layout sidebar widget avatar_url bio timezone_offset date_format language_code
locale_name notification_settings email_notifications newsletter community_id community_name string_value
stringLength connection_count connection_type database_size database_host redis_host mongo_db redisPort
tan_color stan mustang pan_id span expand panel pandas company_pan_card_type wasp rasp license_key_count
keyboard_shortcut keyed_by keys_total apiVersion api_url api_enabled private_repo secretary_name
tokenized_at passwordless_login pass_through bypass_rules passenger_name tokens_total tokens_in
token_budget session_length sessions_active otp_channel mfa_status cookie_expiry cookie_notice
password_rules password_hint_enabled author_url authority_name authored authn_method authorization_type
oauth_version secret_type secretUpdatedAt credential_status pin_length pin_visible spinner opinion_count
access_code_count code_name codebase encoded decoder barcode_type zipCode countryCode errorCode statusCode
languageCode timeCode source_code_url code_review keyframe monkey_count turkey_region keynote hotkeys
sort_keys primaryKey partitionKey routing_key cacheKey translationKey schlüsselwort mot_clé palabras_clave
palavra_chave parola_chiave слово_ключ_слова anahtar_kelimeler nyckeltal clavier clave_unica salt_lake
basaltic pepper_spray pinot pinewood shippingPin map_pin gpio_pin pinterest_url card_color cardinality
discard dashboard_card card_expires cardLast4 postcard wildcard_domain uuid order_id file_sha256
icon_base64 build_hash commit_sha version_code revision etag_value checksum_md5 nom_utilisateur
nombre_usuario nome_utente benutzername gebruikersnaam nazwa_uzytkownika имя_пользователя kullanıcı_adı
ユーザー名 用户名 identifiant_client identifiants code_postal codigo_postal codice_fiscale postleitzahl
kod_pocztowy почтовый_индекс posta_kodu 郵便番号 邮政编码 code_promo codigo_descuento codice_sconto clavier_type
codec_name codes_postaux code_client code_article code_produit codigo_cliente codigo_producto
codice_cliente codice_prodotto kod_produktu kod_klienta код_товара код_клиента ürün_kodu müşteri_kodu
security_updates secure verified_email recovery_mode restore_point backup_path access_log access_rules
signature_text sign_up_date signed_at confirmation_sent cle_primaire clé_étrangère clave_principal_tabla
sleutelnummer klucz_obcy ключ_сортировки anahtar_adı schluesselname private_notes privacy_policy
secondary_key_field shared_hosting login_page login_ip device_name device_type card_title lock_version
safe_mode
""")

# Named in the issue or the brief, so the rules were written for them.
KNOWN = """
password newPassword user_secret_details dbpassword apikey newpassword accesstoken userpass mysqlpwd authtoken secretkey
privatekey sshkey DATABASE_URL dsn connection_string recovery_codes webhook_url session_id pin cvv passphrase
"""
KNOWN_HARMLESS = """
key license_key licence_key licenseKey product_key cd_key keyboard author author_name authority primary_key public_key
foreign_key sort_key partition_key key_id key_name token_count password_policy password_changed_at token_expires_at
otp_enabled has_password two_factor_enabled password_reset_required tokens_used max_tokens session_timeout cookie_consent
compass passenger bypass secretary tokenizer pinned shipping spinning postcode
"""


def missed(names: list[str]) -> list[str]:
    return [name for name in names if not RULES.is_secret(name)]


def hit(names: list[str]) -> list[str]:
    return [name for name in names if RULES.is_secret(name)]


def test_the_names_of_the_issue_are_secret_and_its_harmless_ones_are_not() -> None:
    assert missed(_words(KNOWN)) == []
    assert hit(_words(KNOWN_HARMLESS)) == []


@pytest.mark.parametrize(
    "names", [HELD_OUT_1, HELD_OUT_2, HELD_OUT_3, HELD_OUT_4, HELD_OUT_5], ids=["1", "2", "3", "4", "5"]
)
def test_held_out_secret_names_are_found_at_98_percent(names: list[str]) -> None:
    assert len(missed(names)) <= 0.02 * len(names), missed(names)


def test_at_most_1_percent_of_harmless_names_are_hit() -> None:
    assert len(HARMLESS) > 600
    assert len(hit(HARMLESS)) <= 0.01 * len(HARMLESS), hit(HARMLESS)


@pytest.mark.parametrize(
    "name",
    [
        "pass\u200bword", "p\u0430ssword", "\uff50\uff41\uff53\uff53\uff57\uff4f\uff52\uff44", "pa\u00dfwort",
        "p\u0430\u0455\u0455word", "\u03c1\u03b1ssword", "t\u043eken", "se\u00adcret", "\U0001d429assword",
        "p4ssw0rd", "s3cr3t", "t0ken", "pa$$word", "pass\u2060word", "PASSWORD", "PaSsWoRd".swapcase().lower(),
        "api\u00a0key", "api\u2011key", "\u1d18assword",
    ],
)  # fmt: skip
def test_look_alikes_and_invisible_letters_hide_nothing(name: str) -> None:
    assert RULES.is_secret(name)


@pytest.mark.parametrize("joint", ["_", "-", ".", " ", "", "__", "/", ":"])
def test_every_way_to_join_words_is_read(joint: str) -> None:
    for words in (("db", "password"), ("api", "key"), ("private", "key"), ("access", "token"), ("session", "id")):
        assert RULES.is_secret(joint.join(words)), joint.join(words)
        assert RULES.is_secret(joint.join(words).upper())
        assert RULES.is_secret(words[0] + "".join(word.capitalize() for word in words[1:]))
        assert RULES.is_secret("x_" + joint.join(words) + "_2")


def test_words_are_cut_at_case_digits_and_punctuation() -> None:
    assert split_words("HTTPToken2apiKey-x.y Keys") == ["http", "token", "api", "key", "x", "y", "key"]


def test_folding_leaves_ascii_and_strips_accents_and_invisible_letters() -> None:
    assert fold("plain Key") == "plain Key"
    assert fold("Cl\u00e9\u200b \u0142") == "Cle l"


def test_words_of_the_operator_add_and_remove() -> None:
    rules = SecretNames(extra=["key", "license key", "\u5408\u8a00", "fruit"], harmless=["token", "api key"])
    assert all(map(rules.is_secret, ["key", "licenseKey", "FRUIT_BASKET", "\u5408\u8a00"]))
    assert not any(map(rules.is_secret, ["token", "user_token", "api_key", "primary_key", "public_key", "sort_key"]))
    # A longer built-in phrase outlives a shorter harmless word.
    assert rules.is_secret("access_token")
    assert rules.is_secret("password")


@pytest.mark.parametrize(("extra", "harmless"), [(["--"], []), ([], ["1"]), (["api key"], ["api_key"])])
def test_useless_or_contradicting_words_are_refused(extra: list[str], harmless: list[str]) -> None:
    with pytest.raises(ValueError, match=r"no word|both"):
        SecretNames(extra, harmless)


def test_a_very_long_name_is_judged_by_its_stems_and_fast() -> None:
    assert RULES.is_secret("x" * 100_000 + "password")
    assert not RULES.is_secret("x" * 100_000)


def test_no_list_of_the_vocabulary_is_empty_or_says_a_word_twice() -> None:
    for role, words in VOCABULARY.items():
        assert words, role
        assert len(words) == len(set(words)), role


# Invented before the review's findings were fixed; then 30 of 63 were found, and 9 of 62 hit.
REVIEW_SECRET = """
ftpw rootpw mailpw sqlPw dbPassWd userPassWord ftpPassWd transfer_code domain_auth_code eppKey
domainAuthInfo registrarPassword auth_info_code transferSecret security_answers secretQuestionAns
challenge_question_answer recovery_question_answer mothersMaidenName apns_p8_key apnsPrivateKey fcmKey
sslKey tlsKeyPem cephx_key cephSecret rbd_key osd_keyring gluster_secret iscsi_chap_password chapSecret
iscsi_key s3Key swift_key minioKey keystore_pass jksKey pkcs12 p12_base64 pfx_base64 pem_key server_pem
key_file_content wallet_private_seed xprivkey extended_private_key bip39_words acc_tok refreshTok
auth_tok apiTok slack_hook_url hookUrl discord_hook callback_hook_secret backup_enc_key enc_key dkimKey
dkim_private ipmi_pw kvm_password vnc_pass spice_ticket_password
"""
REVIEW_HARMLESS = """
last_password_reset last_password_change_ip password_last_changed_by last_token_refresh enclave conclaves
slavery autoclave laclave press_pass bus_pass ski_pass_type токенизатор токенизация_включена
парольная_политика код_региона пин_карты_мира pin_region question_answer_count faq_answer answer answers
answer_text question hook_name hook_count hooks_enabled git_hook_type hook_status pem_count keyring_count
keyfile_path keyfile_name pfx_version transfer_id transfer_status transfer_date epp_status epp_server
auth_status seed seed_count world_seed seedbed private_label extended_attributes tok_count stock
token_usage_at atok keystroke keyhole keypress keypair_name key_pair_id ceph_pool ceph_status
license_key_type domain_status domain_code auth_server_name registrar_name
"""
REVIEW_NAMED = """
dbpw passWd epp_code eppCode domain_epp auth_code security_question_answer apns_key ceph_key rados_key keyring keyfile
pfx pem private_seed xpriv access_tok hook_url गुप्त
"""
REVIEW_NAMED_HARMLESS = """
conclave last_password_change токенизация Пин_код_региона press_pass key license_key hooks_url TikTok
"""


def test_the_names_of_the_review_are_judged_right() -> None:
    assert missed(_words(REVIEW_NAMED)) == []
    assert hit(_words(REVIEW_NAMED_HARMLESS)) == []
    assert len(missed(_words(REVIEW_SECRET))) <= 3, missed(_words(REVIEW_SECRET))
    assert len(hit(_words(REVIEW_HARMLESS))) <= 1, hit(_words(REVIEW_HARMLESS))
