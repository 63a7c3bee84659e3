"""The demo language: English words with their French, German and Chinese forms.

Tables only; `grammar` knows how the forms are put together. One row per entry, columns split
at `|`. Genders are m, f, n; kinds say which verbs and adjectives suit a noun.
"""

# The tables are one row per entry, whatever its length.
# ruff: noqa: E501, RUF001

from __future__ import annotations

from dataclasses import dataclass

# English sg | pl | French sg | pl | gender | German sg | pl | gender | kind |
# Chinese and its measure word | German acc. sg if it differs
_NOUNS = """
boy|boys|garçon|garçons|m|Junge|Jungen|m|human|男孩 个|Jungen
girl|girls|fille|filles|f|Mädchen|Mädchen|n|human|女孩 个
man|men|homme|hommes|m|Mann|Männer|m|human|男人 个
woman|women|femme|femmes|f|Frau|Frauen|f|human|女人 个
child|children|enfant|enfants|m|Kind|Kinder|n|human|孩子 个
teacher|teachers|professeur|professeurs|m|Lehrer|Lehrer|m|human|老师 位
doctor|doctors|médecin|médecins|m|Arzt|Ärzte|m|human|医生 位
baker|bakers|boulanger|boulangers|m|Bäcker|Bäcker|m|human|面包师 位
friend|friends|ami|amis|m|Freund|Freunde|m|human|朋友 个
sister|sisters|sœur|sœurs|f|Schwester|Schwestern|f|human|姐姐 个
brother|brothers|frère|frères|m|Bruder|Brüder|m|human|哥哥 个
mother|mothers|mère|mères|f|Mutter|Mütter|f|human|母亲 位
father|fathers|père|pères|m|Vater|Väter|m|human|父亲 位
farmer|farmers|fermier|fermiers|m|Bauer|Bauern|m|human|农民 位|Bauern
nurse|nurses|infirmière|infirmières|f|Krankenschwester|Krankenschwestern|f|human|护士 位
student|students|étudiant|étudiants|m|Student|Studenten|m|human|学生 个|Studenten
painter|painters|peintre|peintres|m|Maler|Maler|m|human|画家 位
neighbour|neighbours|voisin|voisins|m|Nachbar|Nachbarn|m|human|邻居 个|Nachbarn
king|kings|roi|rois|m|König|Könige|m|human|国王 位
queen|queens|reine|reines|f|Königin|Königinnen|f|human|女王 位
uncle|uncles|oncle|oncles|m|Onkel|Onkel|m|human|叔叔 位
aunt|aunts|tante|tantes|f|Tante|Tanten|f|human|阿姨 位
soldier|soldiers|soldat|soldats|m|Soldat|Soldaten|m|human|士兵 名|Soldaten
driver|drivers|chauffeur|chauffeurs|m|Fahrer|Fahrer|m|human|司机 位
writer|writers|écrivain|écrivains|m|Schriftsteller|Schriftsteller|m|human|作家 位
singer|singers|chanteuse|chanteuses|f|Sängerin|Sängerinnen|f|human|歌手 位
lawyer|lawyers|avocat|avocats|m|Anwalt|Anwälte|m|human|律师 位
cat|cats|chat|chats|m|Katze|Katzen|f|animal|猫 只
dog|dogs|chien|chiens|m|Hund|Hunde|m|animal|狗 只
horse|horses|cheval|chevaux|m|Pferd|Pferde|n|animal|马 匹
bird|birds|oiseau|oiseaux|m|Vogel|Vögel|m|animal|鸟 只
mouse|mice|souris|souris|f|Maus|Mäuse|f|animal|老鼠 只
cow|cows|vache|vaches|f|Kuh|Kühe|f|animal|奶牛 头
rabbit|rabbits|lapin|lapins|m|Kaninchen|Kaninchen|n|animal|兔子 只
duck|ducks|canard|canards|m|Ente|Enten|f|animal|鸭子 只
pig|pigs|cochon|cochons|m|Schwein|Schweine|n|animal|猪 头
goat|goats|chèvre|chèvres|f|Ziege|Ziegen|f|animal|山羊 只
bear|bears|ours|ours|m|Bär|Bären|m|animal|熊 头|Bären
lion|lions|lion|lions|m|Löwe|Löwen|m|animal|狮子 头|Löwen
wolf|wolves|loup|loups|m|Wolf|Wölfe|m|animal|狼 只
fox|foxes|renard|renards|m|Fuchs|Füchse|m|animal|狐狸 只
monkey|monkeys|singe|singes|m|Affe|Affen|m|animal|猴子 只|Affen
elephant|elephants|éléphant|éléphants|m|Elefant|Elefanten|m|animal|象 头|Elefanten
frog|frogs|grenouille|grenouilles|f|Frosch|Frösche|m|animal|青蛙 只
chicken|chickens|poule|poules|f|Huhn|Hühner|n|animal|鸡 只
apple|apples|pomme|pommes|f|Apfel|Äpfel|m|food|苹果 个
cake|cakes|gâteau|gâteaux|m|Kuchen|Kuchen|m|food|蛋糕 个
egg|eggs|œuf|œufs|m|Ei|Eier|n|food|鸡蛋 个
pear|pears|poire|poires|f|Birne|Birnen|f|food|梨 个
tomato|tomatoes|tomate|tomates|f|Tomate|Tomaten|f|food|西红柿 个
orange|oranges|orange|oranges|f|Orange|Orangen|f|food|橙子 个
bread||pain||m|Brot||n|food|面包 片
cheese||fromage||m|Käse||m|food|奶酪 块
soup||soupe||f|Suppe||f|food|汤 碗
banana|bananas|banane|bananes|f|Banane|Bananen|f|food|香蕉 根
potato|potatoes|pomme de terre|pommes de terre|f|Kartoffel|Kartoffeln|f|food|土豆 个
carrot|carrots|carotte|carottes|f|Karotte|Karotten|f|food|胡萝卜 根
lemon|lemons|citron|citrons|m|Zitrone|Zitronen|f|food|柠檬 个
strawberry|strawberries|fraise|fraises|f|Erdbeere|Erdbeeren|f|food|草莓 颗
rice||riz||m|Reis||m|food|米饭 碗
meat||viande||f|Fleisch||n|food|肉 块
butter||beurre||m|Butter||f|food|黄油 块
honey||miel||m|Honig||m|food|蜂蜜 勺
water||eau||f|Wasser||n|drink|水 杯
milk||lait||m|Milch||f|drink|牛奶 杯
tea||thé||m|Tee||m|drink|茶 杯
coffee||café||m|Kaffee||m|drink|咖啡 杯
juice||jus||m|Saft||m|drink|果汁 杯
wine||vin||m|Wein||m|drink|葡萄酒 杯
beer||bière||f|Bier||n|drink|啤酒 杯
book|books|livre|livres|m|Buch|Bücher|n|text|书 本
letter|letters|lettre|lettres|f|Brief|Briefe|m|text|信 封
newspaper|newspapers|journal|journaux|m|Zeitung|Zeitungen|f|text|报纸 份
story|stories|histoire|histoires|f|Geschichte|Geschichten|f|text|故事 个
poem|poems|poème|poèmes|m|Gedicht|Gedichte|n|text|诗 首
postcard|postcards|carte postale|cartes postales|f|Postkarte|Postkarten|f|text|明信片 张
report|reports|rapport|rapports|m|Bericht|Berichte|m|text|报告 份
novel|novels|roman|romans|m|Roman|Romane|m|text|小说 本
list|lists|liste|listes|f|Liste|Listen|f|text|清单 份
car|cars|voiture|voitures|f|Auto|Autos|n|thing|汽车 辆
bicycle|bicycles|vélo|vélos|m|Fahrrad|Fahrräder|n|thing|自行车 辆
table|tables|table|tables|f|Tisch|Tische|m|thing|桌子 张
chair|chairs|chaise|chaises|f|Stuhl|Stühle|m|thing|椅子 把
lamp|lamps|lampe|lampes|f|Lampe|Lampen|f|thing|灯 盏
key|keys|clé|clés|f|Schlüssel|Schlüssel|m|thing|钥匙 把
hat|hats|chapeau|chapeaux|m|Hut|Hüte|m|thing|帽子 顶
coat|coats|manteau|manteaux|m|Mantel|Mäntel|m|thing|大衣 件
shoe|shoes|chaussure|chaussures|f|Schuh|Schuhe|m|thing|鞋子 只
bag|bags|sac|sacs|m|Tasche|Taschen|f|thing|包 个
flower|flowers|fleur|fleurs|f|Blume|Blumen|f|thing|花 朵
picture|pictures|image|images|f|Bild|Bilder|n|thing|图片 张
clock|clocks|horloge|horloges|f|Uhr|Uhren|f|thing|时钟 个
ball|balls|ballon|ballons|m|Ball|Bälle|m|thing|球 个
gift|gifts|cadeau|cadeaux|m|Geschenk|Geschenke|n|thing|礼物 份
pen|pens|stylo|stylos|m|Stift|Stifte|m|thing|笔 支
cup|cups|tasse|tasses|f|Tasse|Tassen|f|thing|杯子 个
plate|plates|assiette|assiettes|f|Teller|Teller|m|thing|盘子 个
knife|knives|couteau|couteaux|m|Messer|Messer|n|thing|刀 把
spoon|spoons|cuillère|cuillères|f|Löffel|Löffel|m|thing|勺子 把
bottle|bottles|bouteille|bouteilles|f|Flasche|Flaschen|f|thing|瓶子 个
umbrella|umbrellas|parapluie|parapluies|m|Regenschirm|Regenschirme|m|thing|雨伞 把
shirt|shirts|chemise|chemises|f|Hemd|Hemden|n|thing|衬衫 件
dress|dresses|robe|robes|f|Kleid|Kleider|n|thing|连衣裙 条
phone|phones|téléphone|téléphones|m|Telefon|Telefone|n|thing|电话 部
computer|computers|ordinateur|ordinateurs|m|Computer|Computer|m|thing|电脑 台
guitar|guitars|guitare|guitares|f|Gitarre|Gitarren|f|thing|吉他 把
ring|rings|bague|bagues|f|Ring|Ringe|m|thing|戒指 枚
basket|baskets|panier|paniers|m|Korb|Körbe|m|thing|篮子 个
blanket|blankets|couverture|couvertures|f|Decke|Decken|f|thing|毯子 条
mirror|mirrors|miroir|miroirs|m|Spiegel|Spiegel|m|thing|镜子 面
scarf|scarves|écharpe|écharpes|f|Schal|Schals|m|thing|围巾 条
door|doors|porte|portes|f|Tür|Türen|f|opening|门 扇
window|windows|fenêtre|fenêtres|f|Fenster|Fenster|n|opening|窗户 扇
box|boxes|boîte|boîtes|f|Kiste|Kisten|f|opening|箱子 个
drawer|drawers|tiroir|tiroirs|m|Schublade|Schubladen|f|opening|抽屉 个
cupboard|cupboards|armoire|armoires|f|Schrank|Schränke|m|opening|柜子 个
shop|shops|magasin|magasins|m|Laden|Läden|m|opening|商店 家
house|houses|maison|maisons|f|Haus|Häuser|n|sight|房子 座
tree|trees|arbre|arbres|m|Baum|Bäume|m|sight|树 棵
boat|boats|bateau|bateaux|m|Boot|Boote|n|sight|船 条
train|trains|train|trains|m|Zug|Züge|m|sight|火车 列
bridge|bridges|pont|ponts|m|Brücke|Brücken|f|sight|桥 座
garden|gardens|jardin|jardins|m|Garten|Gärten|m|sight|花园 座
river|rivers|rivière|rivières|f|Fluss|Flüsse|m|sight|河 条
mountain|mountains|montagne|montagnes|f|Berg|Berge|m|sight|山 座
star|stars|étoile|étoiles|f|Stern|Sterne|m|sight|星星 颗
city|cities|ville|villes|f|Stadt|Städte|f|sight|城市 座
church|churches|église|églises|f|Kirche|Kirchen|f|sight|教堂 座
castle|castles|château|châteaux|m|Schloss|Schlösser|n|sight|城堡 座
lake|lakes|lac|lacs|m|See|Seen|m|sight|湖 个
tower|towers|tour|tours|f|Turm|Türme|m|sight|塔 座
island|islands|île|îles|f|Insel|Inseln|f|sight|岛 座
village|villages|village|villages|m|Dorf|Dörfer|n|sight|村庄 个
museum|museums|musée|musées|m|Museum|Museen|n|sight|博物馆 座
plane|planes|avion|avions|m|Flugzeug|Flugzeuge|n|sight|飞机 架
street|streets|rue|rues|f|Straße|Straßen|f|sight|街道 条
hotel|hotels|hôtel|hôtels|m|Hotel|Hotels|n|sight|旅馆 家
"""

# English | French m sg | f sg | m pl | f pl | before a vowel (m sg) | before/after the noun |
# German stem | Chinese (= after it: "is" takes 是 ... 的; a/b/c: of living things, things, sights) |
# kinds of nouns it suits
_ADJECTIVES = """
big|grand|grande|grands|grandes||before|groß|大|animal thing opening sight food
small|petit|petite|petits|petites||before|klein|小|animal thing opening sight food
old|vieux|vieille|vieux|vieilles|vieil|before|alt|年老的/旧/古老的|human animal thing opening sight text
new|nouveau|nouvelle|nouveaux|nouvelles|nouvel|before|neu|新|thing text opening
young|jeune|jeune|jeunes|jeunes||before|jung|年轻的|human animal
beautiful|beau|belle|beaux|belles|bel|before|schön|美丽的|animal thing sight text
good|bon|bonne|bons|bonnes||before|gut|好|food drink text
long|long|longue|longs|longues||before|lang|长|text
red|rouge|rouge|rouges|rouges||after|rot|=红色的|thing opening
green|vert|verte|verts|vertes||after|grün|=绿色的|thing opening
blue|bleu|bleue|bleus|bleues||after|blau|=蓝色的|thing opening
yellow|jaune|jaune|jaunes|jaunes||after|gelb|=黄色的|thing opening
white|blanc|blanche|blancs|blanches||after|weiß|=白色的|animal thing opening
black|noir|noire|noirs|noires||after|schwarz|=黑色的|animal thing
grey|gris|grise|gris|grises||after|grau|=灰色的|animal thing
happy|heureux|heureuse|heureux|heureuses||after|glücklich|快乐的|human animal
sad|triste|triste|tristes|tristes||after|traurig|悲伤的|human text
tired|fatigué|fatiguée|fatigués|fatiguées||after|müde|疲倦的|human animal
angry|fâché|fâchée|fâchés|fâchées||after|wütend|生气的|human
clever|intelligent|intelligente|intelligents|intelligentes||after|klug|聪明的|human animal
lazy|paresseux|paresseuse|paresseux|paresseuses||after|faul|懒惰的|human animal
brave|courageux|courageuse|courageux|courageuses||after|mutig|勇敢的|human animal
friendly|sympathique|sympathique|sympathiques|sympathiques||after|freundlich|友好的|human
rich|riche|riche|riches|riches||after|reich|富有的|human
famous|célèbre|célèbre|célèbres|célèbres||after|berühmt|著名的|human sight text
dangerous|dangereux|dangereuse|dangereux|dangereuses||after|gefährlich|危险的|animal
wild|sauvage|sauvage|sauvages|sauvages||after|wild|=野生的|animal
strong|fort|forte|forts|fortes||after|stark|强壮的|human animal
cold|froid|froide|froids|froides||after|kalt|冷的|drink food
hot|chaud|chaude|chauds|chaudes||after|heiß|热的|drink food
sweet|sucré|sucrée|sucrés|sucrées||after|süß|甜的|drink food
fresh|frais|fraîche|frais|fraîches||after|frisch|新鲜的|drink food
clean|propre|propre|propres|propres||after|sauber|干净的|thing opening
dirty|sale|sale|sales|sales||after|schmutzig|脏的|thing opening
heavy|lourd|lourde|lourds|lourdes||after|schwer|沉重的|thing
round|rond|ronde|ronds|rondes||after|rund|圆的|thing
empty|vide|vide|vides|vides||after|leer|=空的|opening
interesting|intéressant|intéressante|intéressants|intéressantes||after|interessant|有趣的|text
modern|moderne|moderne|modernes|modernes||after|modern|现代的|sight
quiet|calme|calme|calmes|calmes||after|ruhig|安静的|human sight
"""

# English base | 3sg | past | French je | il | nous | ils | participle | infinitive |
# German ich | er | wir | participle | infinitive | Chinese (/negated present /past, if irregular) |
# kinds of objects (none: intransitive)
_VERBS = """
see|sees|saw|vois|voit|voyons|voient|vu|voir|sehe|sieht|sehen|gesehen|sehen|看见/看不见|human animal thing sight
eat|eats|ate|mange|mange|mangeons|mangent|mangé|manger|esse|isst|essen|gegessen|essen|吃|food
drink|drinks|drank|bois|boit|buvons|boivent|bu|boire|trinke|trinkt|trinken|getrunken|trinken|喝|drink
buy|buys|bought|achète|achète|achetons|achètent|acheté|acheter|kaufe|kauft|kaufen|gekauft|kaufen|买|food text thing
read|reads|read|lis|lit|lisons|lisent|lu|lire|lese|liest|lesen|gelesen|lesen|读|text
write|writes|wrote|écris|écrit|écrivons|écrivent|écrit|écrire|schreibe|schreibt|schreiben|geschrieben|schreiben|写|text
find|finds|found|trouve|trouve|trouvons|trouvent|trouvé|trouver|finde|findet|finden|gefunden|finden|找到/找不到|animal text thing
lose|loses|lost|perds|perd|perdons|perdent|perdu|perdre|verliere|verliert|verlieren|verloren|verlieren|弄丢|text thing
take|takes|took|prends|prend|prenons|prennent|pris|prendre|nehme|nimmt|nehmen|genommen|nehmen|拿走|food thing
love|loves|loved|aime|aime|aimons|aiment|aimé|aimer|liebe|liebt|lieben|geliebt|lieben|爱/不爱/爱过|human animal sight
hear|hears|heard|entends|entend|entendons|entendent|entendu|entendre|höre|hört|hören|gehört|hören|听见/听不见|human animal
paint|paints|painted|peins|peint|peignons|peignent|peint|peindre|male|malt|malen|gemalt|malen|画|animal sight
sell|sells|sold|vends|vend|vendons|vendent|vendu|vendre|verkaufe|verkauft|verkaufen|verkauft|verkaufen|卖|food thing
look for|looks for|looked for|cherche|cherche|cherchons|cherchent|cherché|chercher|suche|sucht|suchen|gesucht|suchen|寻找|human animal text thing
carry|carries|carried|porte|porte|portons|portent|porté|porter|trage|trägt|tragen|getragen|tragen|搬|thing
open|opens|opened|ouvre|ouvre|ouvrons|ouvrent|ouvert|ouvrir|öffne|öffnet|öffnen|geöffnet|öffnen|打开|opening
close|closes|closed|ferme|ferme|fermons|ferment|fermé|fermer|schließe|schließt|schließen|geschlossen|schließen|关上|opening
bring|brings|brought|apporte|apporte|apportons|apportent|apporté|apporter|bringe|bringt|bringen|gebracht|bringen|带来|food text thing
forget|forgets|forgot|oublie|oublie|oublions|oublient|oublié|oublier|vergesse|vergisst|vergessen|vergessen|vergessen|忘记|text thing
sleep|sleeps|slept|dors|dort|dormons|dorment|dormi|dormir|schlafe|schläft|schlafen|geschlafen|schlafen|睡觉|
work|works|worked|travaille|travaille|travaillons|travaillent|travaillé|travailler|arbeite|arbeitet|arbeiten|gearbeitet|arbeiten|工作|
sing|sings|sang|chante|chante|chantons|chantent|chanté|chanter|singe|singt|singen|gesungen|singen|唱歌|
dance|dances|danced|danse|danse|dansons|dansent|dansé|danser|tanze|tanzt|tanzen|getanzt|tanzen|跳舞|
laugh|laughs|laughed|ris|rit|rions|rient|ri|rire|lache|lacht|lachen|gelacht|lachen|大笑|
wait|waits|waited|attends|attend|attendons|attendent|attendu|attendre|warte|wartet|warten|gewartet|warten|等待|
play|plays|played|joue|joue|jouons|jouent|joué|jouer|spiele|spielt|spielen|gespielt|spielen|玩耍|
cook|cooks|cooked|cuisine|cuisine|cuisinons|cuisinent|cuisiné|cuisiner|koche|kocht|kochen|gekocht|kochen|做饭|
clean|cleans|cleaned|nettoie|nettoie|nettoyons|nettoient|nettoyé|nettoyer|putze|putzt|putzen|geputzt|putzen|清洁|thing opening
wash|washes|washed|lave|lave|lavons|lavent|lavé|laver|wasche|wäscht|waschen|gewaschen|waschen|洗|food thing
repair|repairs|repaired|répare|répare|réparons|réparent|réparé|réparer|repariere|repariert|reparieren|repariert|reparieren|修理|thing opening
visit|visits|visited|visite|visite|visitons|visitent|visité|visiter|besuche|besucht|besuchen|besucht|besuchen|参观|sight
meet|meets|met|rencontre|rencontre|rencontrons|rencontrent|rencontré|rencontrer|treffe|trifft|treffen|getroffen|treffen|遇到/遇不到|human
feed|feeds|fed|nourris|nourrit|nourrissons|nourrissent|nourri|nourrir|füttere|füttert|füttern|gefüttert|füttern|喂|animal
watch|watches|watched|observe|observe|observons|observent|observé|observer|beobachte|beobachtet|beobachten|beobachtet|beobachten|观察|human animal sight
push|pushes|pushed|pousse|pousse|poussons|poussent|poussé|pousser|schiebe|schiebt|schieben|geschoben|schieben|推|thing
choose|chooses|chose|choisis|choisit|choisissons|choisissent|choisi|choisir|wähle|wählt|wählen|gewählt|wählen|选择|food text thing
hide|hides|hid|cache|cache|cachons|cachent|caché|cacher|verstecke|versteckt|verstecken|versteckt|verstecken|藏|text thing
steal|steals|stole|vole|vole|volons|volent|volé|voler|stehle|stiehlt|stehlen|gestohlen|stehlen|偷|food thing
photograph|photographs|photographed|photographie|photographie|photographions|photographient|photographié|photographier|fotografiere|fotografiert|fotografieren|fotografiert|fotografieren|拍摄|human animal sight
translate|translates|translated|traduis|traduit|traduisons|traduisent|traduit|traduire|übersetze|übersetzt|übersetzen|übersetzt|übersetzen|翻译|text
taste|tastes|tasted|goûte|goûte|goûtons|goûtent|goûté|goûter|probiere|probiert|probieren|probiert|probieren|品尝|food drink
order|orders|ordered|commande|commande|commandons|commandent|commandé|commander|bestelle|bestellt|bestellen|bestellt|bestellen|订购|food drink thing
use|uses|used|utilise|utilise|utilisons|utilisent|utilisé|utiliser|benutze|benutzt|benutzen|benutzt|benutzen|使用|thing
send|sends|sent|envoie|envoie|envoyons|envoient|envoyé|envoyer|schicke|schickt|schicken|geschickt|schicken|寄|text
cry|cries|cried|pleure|pleure|pleurons|pleurent|pleuré|pleurer|weine|weint|weinen|geweint|weinen|哭|
smile|smiles|smiled|souris|sourit|sourions|sourient|souri|sourire|lächle|lächelt|lächeln|gelächelt|lächeln|微笑|
shout|shouts|shouted|crie|crie|crions|crient|crié|crier|schreie|schreit|schreien|geschrien|schreien|大叫|
study|studies|studied|étudie|étudie|étudions|étudient|étudié|étudier|lerne|lernt|lernen|gelernt|lernen|学习|
speak|speaks|spoke|parle|parle|parlons|parlent|parlé|parler|spreche|spricht|sprechen|gesprochen|sprechen|说话|
dream|dreams|dreamed|rêve|rêve|rêvons|rêvent|rêvé|rêver|träume|träumt|träumen|geträumt|träumen|做梦|
"""

# French futures whose stem is not the infinitive less its e.
FRENCH_FUTURES = {
    "acheter": "achèter",
    "envoyer": "enverr",
    "nettoyer": "nettoier",
    "voir": "verr",
}

# English base | 3sg | French je | il | nous | ils | German ich | er | wir | Chinese | negated
_MODALS = """
want to|wants to|veux|veut|voulons|veulent|will|will|wollen|想|不想
can|can|peux|peut|pouvons|peuvent|kann|kann|können|能|不能
must|must|dois|doit|devons|doivent|muss|muss|müssen|必须|不可以
"""

# English | French | German | Chinese; how often (before the verb), or in which way (after it)
_FREQUENCIES = """
often|souvent|oft|经常
always|toujours|immer|总是
sometimes|parfois|manchmal|有时
rarely|rarement|selten|很少
"""
_MANNERS = """
slowly|lentement|langsam|慢慢地
quietly|doucement|leise|轻轻地
well|bien|gut|好好地
happily|joyeusement|fröhlich|高兴地
"""

# English | French | German | Chinese
_PLACES = """
in the garden|dans le jardin|im Garten|在花园里
in the kitchen|dans la cuisine|in der Küche|在厨房里
in the house|dans la maison|im Haus|在房子里
in the park|dans le parc|im Park|在公园里
at the market|au marché|auf dem Markt|在市场上
in the forest|dans la forêt|im Wald|在森林里
on the beach|sur la plage|am Strand|在海滩上
in the city|dans la ville|in der Stadt|在城里
at the station|à la gare|am Bahnhof|在车站
in the library|dans la bibliothèque|in der Bibliothek|在图书馆里
under the tree|sous l'arbre|unter dem Baum|在树下
at school|à l'école|in der Schule|在学校
in the street|dans la rue|auf der Straße|在街上
in front of the church|devant l'église|vor der Kirche|在教堂前面
behind the house|derrière la maison|hinter dem Haus|在房子后面
near the river|près de la rivière|in der Nähe des Flusses|在河边
in the restaurant|au restaurant|im Restaurant|在餐馆里
at the airport|à l'aéroport|am Flughafen|在机场
"""
# English | French | German | Chinese: the verb, and what follows it
_DESTINATIONS = """
to the market|au marché|zum Markt|去 市场
to school|à l'école|zur Schule|去 学校
to the station|à la gare|zum Bahnhof|去 车站
to the river|à la rivière|zum Fluss|去 河边
to the beach|à la plage|zum Strand|去 海滩
to the library|à la bibliothèque|zur Bibliothek|去 图书馆
to the bakery|à la boulangerie|zur Bäckerei|去 面包店
to the doctor|chez le médecin|zum Arzt|去看医生
to the museum|au musée|zum Museum|去 博物馆
to the airport|à l'aéroport|zum Flughafen|去 机场
home|à la maison|nach Hause|回家
"""
# English | French | German | Chinese | tenses it goes with
_TIMES = """
today|aujourd'hui|heute|今天|present past future modal
yesterday|hier|gestern|昨天|past
tomorrow|demain|morgen|明天|future modal
tonight|ce soir|heute Abend|今晚|future modal
last night|hier soir|gestern Abend|昨晚|past
next week|la semaine prochaine|nächste Woche|下周|future
last week|la semaine dernière|letzte Woche|上周|past
next year|l'année prochaine|nächstes Jahr|明年|future
last year|l'année dernière|letztes Jahr|去年|past
now|maintenant|jetzt|现在|present modal
every day|chaque jour|jeden Tag|每天|present
every morning|chaque matin|jeden Morgen|每天早上|present
every week|chaque semaine|jede Woche|每周|present
on Monday|lundi|am Montag|星期一|present past future modal
on Tuesday|mardi|am Dienstag|星期二|present past future modal
on Wednesday|mercredi|am Mittwoch|星期三|present past future modal
on Thursday|jeudi|am Donnerstag|星期四|present past future modal
on Friday|vendredi|am Freitag|星期五|present past future modal
on Saturday|samedi|am Samstag|星期六|present past future modal
on Sunday|dimanche|am Sonntag|星期日|present past future modal
in spring|au printemps|im Frühling|春天|present
in summer|en été|im Sommer|夏天|present
in autumn|en automne|im Herbst|秋天|present
in winter|en hiver|im Winter|冬天|present
"""
_CITIES = """
Paris|Paris|Paris|巴黎
Berlin|Berlin|Berlin|柏林
London|Londres|London|伦敦
Vienna|Vienne|Wien|维也纳
Rome|Rome|Rom|罗马
Geneva|Genève|Genf|日内瓦
Cologne|Cologne|Köln|科隆
Munich|Munich|München|慕尼黑
Hamburg|Hambourg|Hamburg|汉堡
Lyon|Lyon|Lyon|里昂
Madrid|Madrid|Madrid|马德里
Brussels|Bruxelles|Brüssel|布鲁塞尔
"""
_PHRASES = """
Hello!|Bonjour !|Hallo!|你好！
Good morning.|Bonjour.|Guten Morgen.|早上好。
Good evening.|Bonsoir.|Guten Abend.|晚上好。
Good night.|Bonne nuit.|Gute Nacht.|晚安。
Goodbye.|Au revoir.|Auf Wiedersehen.|再见。
Thank you.|Merci.|Danke.|谢谢。
Thank you very much.|Merci beaucoup.|Vielen Dank.|非常感谢。
Please.|S'il vous plaît.|Bitte.|请。
How are you?|Comment allez-vous ?|Wie geht es Ihnen?|你好吗？
I am fine.|Je vais bien.|Mir geht es gut.|我很好。
See you tomorrow.|À demain.|Bis morgen.|明天见。
Yes.|Oui.|Ja.|是的。
No.|Non.|Nein.|不是。
I love you.|Je t'aime.|Ich liebe dich.|我爱你。
What is your name?|Comment vous appelez-vous ?|Wie heißen Sie?|你叫什么名字？
Where is the station?|Où est la gare ?|Wo ist der Bahnhof?|车站在哪里？
"""

# The same in French and German; then Chinese
FEMALE_NAMES = {
    "Anna": "安娜", "Marie": "玛丽", "Julia": "朱莉娅", "Emma": "艾玛", "Clara": "克拉拉",
    "Lisa": "丽莎", "Sophie": "索菲", "Nina": "尼娜", "Laura": "劳拉", "Eva": "伊娃",
}  # fmt: skip
MALE_NAMES = {
    "Tom": "汤姆", "Paul": "保罗", "Max": "马克斯", "Peter": "彼得", "Leo": "利奥",
    "Felix": "费利克斯", "Jan": "扬", "David": "大卫", "Lucas": "卢卡斯", "Simon": "西蒙",
}  # fmt: skip
NAMES = FEMALE_NAMES | MALE_NAMES


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
    zh: str
    zh_measure: str
    de_acc: str = ""


@dataclass(frozen=True)
class Adjective:
    """An adjective: four French forms, an optional prevocalic one, the German stem, Chinese."""

    en: str
    fr_m: str
    fr_f: str
    fr_mp: str
    fr_fp: str
    fr_vowel: str
    position: str
    de: str
    zh: str
    kinds: tuple[str, ...]

    @property
    def is_gradable(self) -> bool:
        """Whether Chinese says 很 (very) with it; red, empty or wild things 是 ... 的."""
        return not self.zh.startswith("=")

    def chinese(self, kind: str) -> str:
        """The form before a noun of `kind`."""
        senses = self.zh.removeprefix("=").split("/")
        sense = {"human": 0, "animal": 0, "sight": 2}.get(kind, 1)
        return senses[sense] if len(senses) == 3 else senses[0]


@dataclass(frozen=True)
class Verb:
    """A verb; French and German forms are for je/il/nous/ils and ich/er/wir.

    Chinese: plain, negated present, past.
    """

    en: str
    en_3sg: str
    en_past: str
    fr: tuple[str, str, str, str]
    fr_participle: str
    fr_infinitive: str
    de: tuple[str, str, str]
    de_participle: str
    de_infinitive: str
    zh: tuple[str, str, str]
    kinds: tuple[str, ...]


@dataclass(frozen=True)
class Modal:
    """A verb followed by an infinitive, forms as in `Verb`; Chinese: plain, negated."""

    en: str
    en_3sg: str
    fr: tuple[str, str, str, str]
    de: tuple[str, str, str]
    zh: tuple[str, str]


@dataclass(frozen=True)
class Words:
    """An invariable phrase in four languages."""

    en: str = ""
    fr: str = ""
    de: str = ""
    zh: str = ""


def _rows(table: str) -> list[list[str]]:
    return [line.split("|") for line in table.strip().splitlines()]


def _noun(r: list[str]) -> Noun:
    zh, measure = r[9].split()
    return Noun(r[0], r[1], r[2], r[3], r[4], r[5], r[6], r[7], r[8], zh, measure, *r[10:])


def _verb(r: list[str]) -> Verb:
    zh = r[14].split("/")
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
        (zh[0], zh[1] if len(zh) > 1 else "", zh[2] if len(zh) > 2 else f"{zh[0]}了"),
        tuple(r[15].split()),
    )


def _modal(r: list[str]) -> Modal:
    return Modal(r[0], r[1], (r[2], r[3], r[4], r[5]), (r[6], r[7], r[8]), (r[9], r[10]))


def _words(table: str) -> tuple[Words, ...]:
    return tuple(Words(*row[:4]) for row in _rows(table))


NOUNS = tuple(_noun(row) for row in _rows(_NOUNS))
ADJECTIVES = tuple(
    Adjective(r[0], r[1], r[2], r[3], r[4], r[5], r[6], r[7], r[8], tuple(r[9].split()))
    for r in _rows(_ADJECTIVES)
)
VERBS = tuple(_verb(row) for row in _rows(_VERBS))
MODALS = tuple(_modal(row) for row in _rows(_MODALS))
FREQUENCIES, MANNERS = _words(_FREQUENCIES), _words(_MANNERS)
PLACES, DESTINATIONS = _words(_PLACES), _words(_DESTINATIONS)
CITIES, PHRASES = _words(_CITIES), _words(_PHRASES)
TIMES = {
    tense: tuple(Words(*row[:4]) for row in _rows(_TIMES) if tense in row[4].split())
    for tense in ("present", "past", "future", "modal")
}
NUMBERS = (
    Words("two", "deux", "zwei", "两"),
    Words("three", "trois", "drei", "三"),
    Words("four", "quatre", "vier", "四"),
    Words("five", "cinq", "fünf", "五"),
)
