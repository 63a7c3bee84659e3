"""The demo language: English words with their French and German forms.

Tables only; `grammar` knows how the forms are put together. One row per entry, columns split
at `|`. Genders are m, f, n; kinds say which verbs and adjectives suit a noun.
"""

# The tables are one row per entry, whatever its length.
# ruff: noqa: E501

from __future__ import annotations

from dataclasses import dataclass

# English sg | pl | French sg | pl | gender | German sg | pl | gender | kind | German acc. sg if it differs
_NOUNS = """
boy|boys|garçon|garçons|m|Junge|Jungen|m|human|Jungen
girl|girls|fille|filles|f|Mädchen|Mädchen|n|human
man|men|homme|hommes|m|Mann|Männer|m|human
woman|women|femme|femmes|f|Frau|Frauen|f|human
child|children|enfant|enfants|m|Kind|Kinder|n|human
teacher|teachers|professeur|professeurs|m|Lehrer|Lehrer|m|human
doctor|doctors|médecin|médecins|m|Arzt|Ärzte|m|human
baker|bakers|boulanger|boulangers|m|Bäcker|Bäcker|m|human
friend|friends|ami|amis|m|Freund|Freunde|m|human
sister|sisters|sœur|sœurs|f|Schwester|Schwestern|f|human
brother|brothers|frère|frères|m|Bruder|Brüder|m|human
mother|mothers|mère|mères|f|Mutter|Mütter|f|human
father|fathers|père|pères|m|Vater|Väter|m|human
cat|cats|chat|chats|m|Katze|Katzen|f|animal
dog|dogs|chien|chiens|m|Hund|Hunde|m|animal
horse|horses|cheval|chevaux|m|Pferd|Pferde|n|animal
bird|birds|oiseau|oiseaux|m|Vogel|Vögel|m|animal
mouse|mice|souris|souris|f|Maus|Mäuse|f|animal
cow|cows|vache|vaches|f|Kuh|Kühe|f|animal
rabbit|rabbits|lapin|lapins|m|Kaninchen|Kaninchen|n|animal
duck|ducks|canard|canards|m|Ente|Enten|f|animal
apple|apples|pomme|pommes|f|Apfel|Äpfel|m|food
cake|cakes|gâteau|gâteaux|m|Kuchen|Kuchen|m|food
egg|eggs|œuf|œufs|m|Ei|Eier|n|food
pear|pears|poire|poires|f|Birne|Birnen|f|food
tomato|tomatoes|tomate|tomates|f|Tomate|Tomaten|f|food
orange|oranges|orange|oranges|f|Orange|Orangen|f|food
bread||pain||m|Brot||n|food
cheese||fromage||m|Käse||m|food
soup||soupe||f|Suppe||f|food
water||eau||f|Wasser||n|drink
milk||lait||m|Milch||f|drink
tea||thé||m|Tee||m|drink
coffee||café||m|Kaffee||m|drink
juice||jus||m|Saft||m|drink
book|books|livre|livres|m|Buch|Bücher|n|text
letter|letters|lettre|lettres|f|Brief|Briefe|m|text
newspaper|newspapers|journal|journaux|m|Zeitung|Zeitungen|f|text
story|stories|histoire|histoires|f|Geschichte|Geschichten|f|text
poem|poems|poème|poèmes|m|Gedicht|Gedichte|n|text
car|cars|voiture|voitures|f|Auto|Autos|n|thing
bicycle|bicycles|vélo|vélos|m|Fahrrad|Fahrräder|n|thing
table|tables|table|tables|f|Tisch|Tische|m|thing
chair|chairs|chaise|chaises|f|Stuhl|Stühle|m|thing
lamp|lamps|lampe|lampes|f|Lampe|Lampen|f|thing
key|keys|clé|clés|f|Schlüssel|Schlüssel|m|thing
hat|hats|chapeau|chapeaux|m|Hut|Hüte|m|thing
coat|coats|manteau|manteaux|m|Mantel|Mäntel|m|thing
shoe|shoes|chaussure|chaussures|f|Schuh|Schuhe|m|thing
bag|bags|sac|sacs|m|Tasche|Taschen|f|thing
flower|flowers|fleur|fleurs|f|Blume|Blumen|f|thing
picture|pictures|image|images|f|Bild|Bilder|n|thing
clock|clocks|horloge|horloges|f|Uhr|Uhren|f|thing
ball|balls|ballon|ballons|m|Ball|Bälle|m|thing
gift|gifts|cadeau|cadeaux|m|Geschenk|Geschenke|n|thing
door|doors|porte|portes|f|Tür|Türen|f|opening
window|windows|fenêtre|fenêtres|f|Fenster|Fenster|n|opening
box|boxes|boîte|boîtes|f|Kiste|Kisten|f|opening
house|houses|maison|maisons|f|Haus|Häuser|n|sight
tree|trees|arbre|arbres|m|Baum|Bäume|m|sight
boat|boats|bateau|bateaux|m|Boot|Boote|n|sight
train|trains|train|trains|m|Zug|Züge|m|sight
bridge|bridges|pont|ponts|m|Brücke|Brücken|f|sight
garden|gardens|jardin|jardins|m|Garten|Gärten|m|sight
river|rivers|rivière|rivières|f|Fluss|Flüsse|m|sight
mountain|mountains|montagne|montagnes|f|Berg|Berge|m|sight
star|stars|étoile|étoiles|f|Stern|Sterne|m|sight
city|cities|ville|villes|f|Stadt|Städte|f|sight
"""

# English | French m sg | f sg | m pl | f pl | before a vowel (m sg) | before/after the noun |
# German stem | kinds of nouns it suits
_ADJECTIVES = """
big|grand|grande|grands|grandes||before|groß|animal thing opening sight food
small|petit|petite|petits|petites||before|klein|human animal thing opening sight food text
old|vieux|vieille|vieux|vieilles|vieil|before|alt|human animal thing opening sight text
new|nouveau|nouvelle|nouveaux|nouvelles|nouvel|before|neu|thing text opening
young|jeune|jeune|jeunes|jeunes||before|jung|human animal
beautiful|beau|belle|beaux|belles|bel|before|schön|animal thing sight text
good|bon|bonne|bons|bonnes||before|gut|food drink text
red|rouge|rouge|rouges|rouges||after|rot|thing opening
green|vert|verte|verts|vertes||after|grün|thing opening
blue|bleu|bleue|bleus|bleues||after|blau|thing opening
white|blanc|blanche|blancs|blanches||after|weiß|animal thing opening
black|noir|noire|noirs|noires||after|schwarz|animal thing
happy|heureux|heureuse|heureux|heureuses||after|glücklich|human animal
sad|triste|triste|tristes|tristes||after|traurig|human text
tired|fatigué|fatiguée|fatigués|fatiguées||after|müde|human animal
cold|froid|froide|froids|froides||after|kalt|drink food
hot|chaud|chaude|chauds|chaudes||after|heiß|drink food
strong|fort|forte|forts|fortes||after|stark|human animal
clean|propre|propre|propres|propres||after|sauber|thing opening
heavy|lourd|lourde|lourds|lourdes||after|schwer|thing
quiet|calme|calme|calmes|calmes||after|ruhig|human sight
"""

# English base | 3sg | past | French je | il | nous | ils | participle | infinitive |
# German ich | er | wir | participle | infinitive | kinds of objects (none: intransitive)
_VERBS = """
see|sees|saw|vois|voit|voyons|voient|vu|voir|sehe|sieht|sehen|gesehen|sehen|human animal thing sight
eat|eats|ate|mange|mange|mangeons|mangent|mangé|manger|esse|isst|essen|gegessen|essen|food
drink|drinks|drank|bois|boit|buvons|boivent|bu|boire|trinke|trinkt|trinken|getrunken|trinken|drink
buy|buys|bought|achète|achète|achetons|achètent|acheté|acheter|kaufe|kauft|kaufen|gekauft|kaufen|food text thing
read|reads|read|lis|lit|lisons|lisent|lu|lire|lese|liest|lesen|gelesen|lesen|text
write|writes|wrote|écris|écrit|écrivons|écrivent|écrit|écrire|schreibe|schreibt|schreiben|geschrieben|schreiben|text
find|finds|found|trouve|trouve|trouvons|trouvent|trouvé|trouver|finde|findet|finden|gefunden|finden|animal text thing
lose|loses|lost|perds|perd|perdons|perdent|perdu|perdre|verliere|verliert|verlieren|verloren|verlieren|text thing
take|takes|took|prends|prend|prenons|prennent|pris|prendre|nehme|nimmt|nehmen|genommen|nehmen|food thing
love|loves|loved|aime|aime|aimons|aiment|aimé|aimer|liebe|liebt|lieben|geliebt|lieben|human animal sight
hear|hears|heard|entends|entend|entendons|entendent|entendu|entendre|höre|hört|hören|gehört|hören|human animal
paint|paints|painted|peins|peint|peignons|peignent|peint|peindre|male|malt|malen|gemalt|malen|animal sight
sell|sells|sold|vends|vend|vendons|vendent|vendu|vendre|verkaufe|verkauft|verkaufen|verkauft|verkaufen|food thing
look for|looks for|looked for|cherche|cherche|cherchons|cherchent|cherché|chercher|suche|sucht|suchen|gesucht|suchen|human animal text thing
carry|carries|carried|porte|porte|portons|portent|porté|porter|trage|trägt|tragen|getragen|tragen|thing
open|opens|opened|ouvre|ouvre|ouvrons|ouvrent|ouvert|ouvrir|öffne|öffnet|öffnen|geöffnet|öffnen|opening
close|closes|closed|ferme|ferme|fermons|ferment|fermé|fermer|schließe|schließt|schließen|geschlossen|schließen|opening
bring|brings|brought|apporte|apporte|apportons|apportent|apporté|apporter|bringe|bringt|bringen|gebracht|bringen|food text thing
forget|forgets|forgot|oublie|oublie|oublions|oublient|oublié|oublier|vergesse|vergisst|vergessen|vergessen|vergessen|text thing
sleep|sleeps|slept|dors|dort|dormons|dorment|dormi|dormir|schlafe|schläft|schlafen|geschlafen|schlafen|
work|works|worked|travaille|travaille|travaillons|travaillent|travaillé|travailler|arbeite|arbeitet|arbeiten|gearbeitet|arbeiten|
sing|sings|sang|chante|chante|chantons|chantent|chanté|chanter|singe|singt|singen|gesungen|singen|
dance|dances|danced|danse|danse|dansons|dansent|dansé|danser|tanze|tanzt|tanzen|getanzt|tanzen|
laugh|laughs|laughed|ris|rit|rions|rient|ri|rire|lache|lacht|lachen|gelacht|lachen|
wait|waits|waited|attends|attend|attendons|attendent|attendu|attendre|warte|wartet|warten|gewartet|warten|
play|plays|played|joue|joue|jouons|jouent|joué|jouer|spiele|spielt|spielen|gespielt|spielen|
cook|cooks|cooked|cuisine|cuisine|cuisinons|cuisinent|cuisiné|cuisiner|koche|kocht|kochen|gekocht|kochen|
"""

# English base | 3sg | French je | il | nous | ils | German ich | er | wir
_MODALS = """
want to|wants to|veux|veut|voulons|veulent|will|will|wollen
can|can|peux|peut|pouvons|peuvent|kann|kann|können
must|must|dois|doit|devons|doivent|muss|muss|müssen
"""

# English | French | German
_PLACES = """
in the garden|dans le jardin|im Garten
in the kitchen|dans la cuisine|in der Küche
in the house|dans la maison|im Haus
in the park|dans le parc|im Park
at the market|au marché|auf dem Markt
in the forest|dans la forêt|im Wald
on the beach|sur la plage|am Strand
in the city|dans la ville|in der Stadt
at the station|à la gare|am Bahnhof
in the library|dans la bibliothèque|in der Bibliothek
under the tree|sous l'arbre|unter dem Baum
at school|à l'école|in der Schule
"""
_DESTINATIONS = """
to the market|au marché|zum Markt
to school|à l'école|zur Schule
to the station|à la gare|zum Bahnhof
to the river|à la rivière|zum Fluss
to the beach|à la plage|zum Strand
to the library|à la bibliothèque|zur Bibliothek
to the bakery|à la boulangerie|zur Bäckerei
to the doctor|chez le médecin|zum Arzt
home|à la maison|nach Hause
"""
# English | French | German | tenses it goes with
_TIMES = """
today|aujourd'hui|heute|present past modal
yesterday|hier|gestern|past
tomorrow|demain|morgen|modal
now|maintenant|jetzt|present modal
every day|chaque jour|jeden Tag|present
every morning|chaque matin|jeden Morgen|present
on Monday|lundi|am Montag|present past modal
on Tuesday|mardi|am Dienstag|present past modal
on Wednesday|mercredi|am Mittwoch|present past modal
on Thursday|jeudi|am Donnerstag|present past modal
on Friday|vendredi|am Freitag|present past modal
on Saturday|samedi|am Samstag|present past modal
on Sunday|dimanche|am Sonntag|present past modal
in summer|en été|im Sommer|present
in winter|en hiver|im Winter|present
"""
_CITIES = """
Paris|Paris|Paris
Berlin|Berlin|Berlin
London|Londres|London
Vienna|Vienne|Wien
Rome|Rome|Rom
Geneva|Genève|Genf
Cologne|Cologne|Köln
Munich|Munich|München
Hamburg|Hambourg|Hamburg
Lyon|Lyon|Lyon
Madrid|Madrid|Madrid
Brussels|Bruxelles|Brüssel
"""
_PHRASES = """
Hello!|Bonjour !|Hallo!
Good morning.|Bonjour.|Guten Morgen.
Good evening.|Bonsoir.|Guten Abend.
Good night.|Bonne nuit.|Gute Nacht.
Goodbye.|Au revoir.|Auf Wiedersehen.
Thank you.|Merci.|Danke.
Thank you very much.|Merci beaucoup.|Vielen Dank.
Please.|S'il vous plaît.|Bitte.
How are you?|Comment allez-vous ?|Wie geht es Ihnen?
I am fine.|Je vais bien.|Mir geht es gut.
See you tomorrow.|À demain.|Bis morgen.
Yes.|Oui.|Ja.
No.|Non.|Nein.
I love you.|Je t'aime.|Ich liebe dich.
What is your name?|Comment vous appelez-vous ?|Wie heißen Sie?
Where is the station?|Où est la gare ?|Wo ist der Bahnhof?
"""

FEMALE_NAMES = ("Anna", "Marie", "Julia", "Emma", "Clara", "Lisa", "Sophie", "Nina", "Laura", "Eva")
MALE_NAMES = ("Tom", "Paul", "Max", "Peter", "Leo", "Felix", "Jan", "David", "Lucas", "Simon")


@dataclass(frozen=True)
class Noun:
    """A noun; the plural forms of a mass noun are empty."""

    en: str
    en_pl: str
    fr: str
    fr_pl: str
    fr_gender: str
    de: str
    de_pl: str
    de_gender: str
    kind: str
    de_acc: str = ""


@dataclass(frozen=True)
class Adjective:
    """An adjective: four French forms, an optional prevocalic one, and the German stem."""

    en: str
    fr_m: str
    fr_f: str
    fr_mp: str
    fr_fp: str
    fr_vowel: str
    position: str
    de: str
    kinds: str


@dataclass(frozen=True)
class Verb:
    """A verb; French and German forms are for je/il/nous/ils and ich/er/wir."""

    en: str
    en_3sg: str
    en_past: str
    fr: tuple[str, str, str, str]
    fr_participle: str
    fr_infinitive: str
    de: tuple[str, str, str]
    de_participle: str
    de_infinitive: str
    kinds: str


@dataclass(frozen=True)
class Modal:
    """A verb followed by an infinitive, forms as in `Verb`."""

    en: str
    en_3sg: str
    fr: tuple[str, str, str, str]
    de: tuple[str, str, str]


def _rows(table: str) -> list[list[str]]:
    return [line.split("|") for line in table.strip().splitlines()]


def _verb(r: list[str]) -> Verb:
    return Verb(
        r[0],
        r[1],
        r[2],
        (r[3], r[4], r[5], r[6]),
        r[7],
        r[8],
        (r[9], r[10], r[11]),
        r[12],
        r[13],
        r[14],
    )


def _triples(table: str) -> tuple[tuple[str, str, str], ...]:
    return tuple((row[0], row[1], row[2]) for row in _rows(table))


NOUNS = tuple(Noun(*row) for row in _rows(_NOUNS))
ADJECTIVES = tuple(Adjective(*row) for row in _rows(_ADJECTIVES))
VERBS = tuple(_verb(row) for row in _rows(_VERBS))
MODALS = tuple(
    Modal(r[0], r[1], (r[2], r[3], r[4], r[5]), (r[6], r[7], r[8])) for r in _rows(_MODALS)
)
PLACES = _triples(_PLACES)
DESTINATIONS = _triples(_DESTINATIONS)
TIMES = tuple((row[0], row[1], row[2], row[3]) for row in _rows(_TIMES))
CITIES = _triples(_CITIES)
PHRASES = _triples(_PHRASES)
NUMBERS = (("two", "deux", "zwei"), ("three", "trois", "drei"), ("four", "quatre", "vier"))
