//! What Java programs share that talk mutual TLS as their users' do: with a
//! PKCS#12 store of their own and the test CA's certificate.

/// `Stores.context(protocol, store)` shows the store's certificate and trusts
/// `ca.crt`; without a store it shows none. The password is `secret`.
const STORES: &str = r#"
class Stores {
    static javax.net.ssl.SSLContext context(String protocol, String store) throws Exception {
        javax.net.ssl.KeyManager[] mine = null;
        if (store != null) {
            java.security.KeyStore keys = java.security.KeyStore.getInstance("PKCS12");
            try (var in = new java.io.FileInputStream(store)) { keys.load(in, "secret".toCharArray()); }
            var factory = javax.net.ssl.KeyManagerFactory.getInstance(javax.net.ssl.KeyManagerFactory.getDefaultAlgorithm());
            factory.init(keys, "secret".toCharArray());
            mine = factory.getKeyManagers();
        }
        java.security.KeyStore roots = java.security.KeyStore.getInstance("PKCS12");
        roots.load(null, null);
        try (var in = new java.io.FileInputStream("ca.crt")) {
            var certificates = java.security.cert.CertificateFactory.getInstance("X.509");
            roots.setCertificateEntry("ca", certificates.generateCertificate(in));
        }
        var theirs = javax.net.ssl.TrustManagerFactory.getInstance(javax.net.ssl.TrustManagerFactory.getDefaultAlgorithm());
        theirs.init(roots);
        var context = javax.net.ssl.SSLContext.getInstance(protocol);
        context.init(mine, theirs.getTrustManagers(), null);
        return context;
    }
}
"#;

/// A source file whose first class may use `Stores`.
pub(crate) fn with_stores(source: &str) -> String {
    format!("{source}{STORES}")
}
