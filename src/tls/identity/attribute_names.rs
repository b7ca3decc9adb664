//! The short names under which OpenSSL prints the attributes of a name.
//!
//! Taken from `openssl list -objects` of OpenSSL 3.0. An attribute that is not
//! here is printed as Nginx prints one that OpenSSL does not know: dotted, with
//! its value in hexadecimal.

/// `2.5.4.N`.
const X520: &[u8] = &[0x55, 0x04];
/// `0.9.2342.19200300.100.1.N`.
const PILOT: &[u8] = &[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 0x01];
/// `1.2.840.113549.1.9.N`.
const PKCS9: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09];
/// `1.3.6.1.4.1.311.60.2.1.N`.
const JURISDICTION: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x82, 0x37, 0x3c, 0x02, 0x01];
/// `1.3.6.1.4.1.311.20.2.N`.
const MICROSOFT: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x82, 0x37, 0x14, 0x02];
/// `1.3.6.1.5.5.7.9.N`.
const PERSONAL_DATA: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x09];
/// `1.2.643.100.N`.
const RUSSIAN: &[u8] = &[0x2a, 0x85, 0x03, 0x64];
/// `1.2.643.3.131.1.N`.
const RUSSIAN_TAX: &[u8] = &[0x2a, 0x85, 0x03, 0x03, 0x81, 0x03, 0x01];

/// The short name of an attribute type, given the content octets of its OID.
pub(super) fn short_name(oid: &[u8]) -> Option<&'static str> {
    let (&last, arc) = oid.split_last()?;
    Some(match (arc, last) {
        (X520, n) => return x520(n),
        (PILOT, n) => return pilot(n),
        (PKCS9, 1) => "emailAddress",
        (PKCS9, 2) => "unstructuredName",
        (PKCS9, 3) => "contentType",
        (PKCS9, 4) => "messageDigest",
        (PKCS9, 5) => "signingTime",
        (PKCS9, 6) => "countersignature",
        (PKCS9, 7) => "challengePassword",
        (PKCS9, 8) => "unstructuredAddress",
        (PKCS9, 9) => "extendedCertificateAttributes",
        (PKCS9, 14) => "extReq",
        (PKCS9, 15) => "SMIME-CAPS",
        (PKCS9, 20) => "friendlyName",
        (PKCS9, 21) => "localKeyID",
        (JURISDICTION, 1) => "jurisdictionL",
        (JURISDICTION, 2) => "jurisdictionST",
        (JURISDICTION, 3) => "jurisdictionC",
        (MICROSOFT, 2) => "msSmartcardLogin",
        (MICROSOFT, 3) => "msUPN",
        (PERSONAL_DATA, 1) => "id-pda-dateOfBirth",
        (PERSONAL_DATA, 2) => "id-pda-placeOfBirth",
        (PERSONAL_DATA, 3) => "id-pda-gender",
        (PERSONAL_DATA, 4) => "id-pda-countryOfCitizenship",
        (PERSONAL_DATA, 5) => "id-pda-countryOfResidence",
        (RUSSIAN, 1) => "OGRN",
        (RUSSIAN, 3) => "SNILS",
        (RUSSIAN, 5) => "OGRNIP",
        (RUSSIAN_TAX, 1) => "INN",
        _ => return None,
    })
}

/// The attributes of X.520.
fn x520(last: u8) -> Option<&'static str> {
    Some(match last {
        3 => "CN",
        4 => "SN",
        5 => "serialNumber",
        6 => "C",
        7 => "L",
        8 => "ST",
        9 => "street",
        10 => "O",
        11 => "OU",
        12 => "title",
        13 => "description",
        14 => "searchGuide",
        15 => "businessCategory",
        16 => "postalAddress",
        17 => "postalCode",
        18 => "postOfficeBox",
        19 => "physicalDeliveryOfficeName",
        20 => "telephoneNumber",
        21 => "telexNumber",
        22 => "teletexTerminalIdentifier",
        23 => "facsimileTelephoneNumber",
        24 => "x121Address",
        25 => "internationaliSDNNumber",
        26 => "registeredAddress",
        27 => "destinationIndicator",
        28 => "preferredDeliveryMethod",
        29 => "presentationAddress",
        30 => "supportedApplicationContext",
        31 => "member",
        32 => "owner",
        33 => "roleOccupant",
        34 => "seeAlso",
        35 => "userPassword",
        36 => "userCertificate",
        37 => "cACertificate",
        38 => "authorityRevocationList",
        39 => "certificateRevocationList",
        40 => "crossCertificatePair",
        41 => "name",
        42 => "GN",
        43 => "initials",
        44 => "generationQualifier",
        45 => "x500UniqueIdentifier",
        46 => "dnQualifier",
        47 => "enhancedSearchGuide",
        48 => "protocolInformation",
        49 => "distinguishedName",
        50 => "uniqueMember",
        51 => "houseIdentifier",
        52 => "supportedAlgorithms",
        53 => "deltaRevocationList",
        54 => "dmdName",
        65 => "pseudonym",
        72 => "role",
        97 => "organizationIdentifier",
        98 => "c3",
        99 => "n3",
        100 => "dnsName",
        _ => return None,
    })
}

/// The attributes of RFC 1274 and RFC 4519's successors under the same arc.
fn pilot(last: u8) -> Option<&'static str> {
    Some(match last {
        1 => "UID",
        2 => "textEncodedORAddress",
        3 => "mail",
        4 => "info",
        5 => "favouriteDrink",
        6 => "roomNumber",
        7 => "photo",
        8 => "userClass",
        9 => "host",
        10 => "manager",
        11 => "documentIdentifier",
        12 => "documentTitle",
        13 => "documentVersion",
        14 => "documentAuthor",
        15 => "documentLocation",
        20 => "homeTelephoneNumber",
        21 => "secretary",
        22 => "otherMailbox",
        23 => "lastModifiedTime",
        24 => "lastModifiedBy",
        25 => "DC",
        26 => "aRecord",
        27 => "pilotAttributeType27",
        28 => "mXRecord",
        29 => "nSRecord",
        30 => "sOARecord",
        31 => "cNAMERecord",
        37 => "associatedDomain",
        38 => "associatedName",
        39 => "homePostalAddress",
        40 => "personalTitle",
        41 => "mobileTelephoneNumber",
        42 => "pagerTelephoneNumber",
        43 => "friendlyCountryName",
        44 => "uid",
        45 => "organizationalStatus",
        46 => "janetMailbox",
        47 => "mailPreferenceOption",
        48 => "buildingName",
        49 => "dSAQuality",
        50 => "singleLevelQuality",
        51 => "subtreeMinimumQuality",
        52 => "subtreeMaximumQuality",
        53 => "personalSignature",
        54 => "dITRedirect",
        55 => "audio",
        56 => "documentPublisher",
        _ => return None,
    })
}
